"""The engine of every run: fetch, embed and write rows, a shard at a time, in this process or on Ray."""
