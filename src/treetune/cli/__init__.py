"""The command line: one file a verb, thin. `app` puts them together and is the door that turns errors into codes."""
