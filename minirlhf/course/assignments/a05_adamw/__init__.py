"""Assignment a05: its test cases, its ways of running them where one call is not enough, and its twist."""
