"""Reports: any runs' numbers in tables beside the published ones, never two protocols in one column; plots; one page.

``runs`` finds runs and ``formats`` reads their files; ``protocol`` tells how two protocols differ; ``rows``,
``columns`` and ``tables`` arrange the numbers; ``published`` joins the published ones; ``sweeps`` finds what can be
drawn and ``plots`` draws it; ``markdown`` and ``page`` write; ``build`` is the whole of it.
"""
