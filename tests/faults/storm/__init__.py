"""A storm: a load of jobs runs on a whole service while faults strike it, and what must hold is checked at the end.

Two sizes of one thing: `test_storm.py` runs a short one, `python -m benchmarks.faults` a long one.

    plan          which fault strikes when, from a seed
    installation  the whole service, its servers behind proxies (proxy, postgres_proxy) that can misbehave
    load          clients that submit and cancel; journal, what each of them sent and was told
    strikes/      the faults themselves, one function each
    watching      what the database shows meanwhile
    evidence      what database, journals and disk say in the end, crossing, what its rows have to do with other
                  workspaces; checker, what must hold of it
    recovery      how long it took from each strike until work went on
    storm         all of that in order
"""
