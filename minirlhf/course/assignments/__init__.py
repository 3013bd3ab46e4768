"""One folder for each assignment, named as its TOML file in chapters/assignments."""
