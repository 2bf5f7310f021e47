"""The engine against closed forms of queueing theory: what `airi validate validate=theory` does.

sizes.py     service times: moments, densities, samples
forms/       the closed forms, pure functions
rig.py       small worlds of the real servers, queues, routers, runtime and driver
rows.py      replications, standard errors, verdicts
families/    the experiments: a world, and the forms its figures are held against
suite.py     all of it, the table, the picture
"""
