"""What the user gives: words, pictures, sounds, saved vectors, lists of them, and the web they come from."""
