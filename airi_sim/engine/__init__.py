"""Floor 4: the virtual world: SimPy driver, executors, links. The only place that imports simpy."""
