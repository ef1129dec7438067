"""One HTML page about a run: figures from SQL, pictures, and the templates that show them."""
