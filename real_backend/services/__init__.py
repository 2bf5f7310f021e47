"""Services for real: what reads texts, looks at images, searches vectors and looks features up."""
