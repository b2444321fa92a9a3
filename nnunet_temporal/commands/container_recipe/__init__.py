"""The files of a container's recipe, as ``commands/container.py`` copies them; words between @ are filled in there."""
