"""Floor 3: what a run leaves behind. Tables, metrics, comparisons, pictures, reports; the only user of pandas."""
