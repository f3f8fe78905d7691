"""Scoring many recordings as one job, on this machine's cores or on a Dask cluster.

A job is a list of :class:`anomaly_detector.scoring.fleet.task.ScoreTask`. Workers, wherever they
run, read recordings and give back tables; only the process that started the job writes to the
output folder, so that a worker that is lost, or slow and thought to be lost, can leave nothing half
or twice.
"""
