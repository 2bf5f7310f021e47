"""Floor 0: the words everybody uses (types), the shapes of plug-ins (protocols), the log. Standard library only."""
