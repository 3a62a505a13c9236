"""One file a task; the file name is the registry. `contract` says what such a file offers."""
