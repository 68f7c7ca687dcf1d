"""Models on disk and on the way there: layout, loading, spaces, the hub, downloads."""
