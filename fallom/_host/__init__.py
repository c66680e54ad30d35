"""The machine: state directory, control page, files, forks."""
