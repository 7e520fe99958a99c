"""What is on the wire, file by file."""
