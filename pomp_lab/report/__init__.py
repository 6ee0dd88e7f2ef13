"""Reports: runs in tables next to the published numbers, never two protocols in one column; plots; one page.

Inputs are ``metrics.json`` documents, as single files, in folders, or gathered in a results file of a table::

    {"about": {"command": ..., ...}, "runs": {"ROW/seed 0": DOCUMENT, "ROW/seed 1": DOCUMENT, ...}}

DOCUMENT is ``{"dataset/metric": number or null, ..., "_run": {...}, "_protocol": {dataset: {...}}}``; one of them holds
all data sets that a learned prompt or model was scored on. These keys of ``_run`` are read, all optional:

- ``row``: label of the row, where the document is not in a results file under ``ROW/seed N``;
- ``seed`` and ``settings``: what decided the run, with ``K`` and ``correction`` for prompts. Runs of one row whose
  settings are equal share a line, as mean and half the range over seeds;
- ``id``: hash of what decided the run; results files of several tables may hold one run, whose numbers count once;
- ``prompt``: template, name of templates or file; ``hand_prompt``: true for a hand-written template;
- ``clip`` and ``pretrained``, or ``config`` (the resolved YAML): the model, for the comparison with published numbers;
- ``config_file``: the file below ``configs/`` that was run, for the model zoo;
- ``command``, ``device``, ``versions``, ``history``, ``select_on_test``.
"""
