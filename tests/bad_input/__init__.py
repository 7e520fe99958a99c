"""What a sender may get wrong, by mistake or on purpose: a test for each row of a table, with its code."""
