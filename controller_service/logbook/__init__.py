"""The decision log: what was seen, predicted and decided at each step, and what came of it.

================== =============================================================================
:mod:`.schema`     the two tables and their columns
:mod:`.origin`     whose steps a file holds, written into the file
:mod:`.buffers`    where the hot path leaves a record: preallocated, bounded, never waiting
:mod:`.book`       the log of a controller: its buffers, its writer, its health
:mod:`.writer`     the thread that turns full buffers into Parquet
:mod:`.shelf`      the files on disk: complete or absent, merged, and bounded in total
:mod:`.names`      what the files are called
:mod:`.reading`    logs as samples for fitting, from a folder or an object store
:mod:`.sources`    folders, files and URLs as a list of log files
:mod:`.opened`     one log file, opened and checked
:mod:`.query`      logs as a table that SQL can filter
:mod:`.figures`    what ``governor log stats`` tells
:mod:`.export`     records out of the log, as Parquet, CSV or JSON lines
:mod:`.merging`    Parquet files: complete or absent, and several made into one
:mod:`.moments`    points in time as people write them
================== =============================================================================

Importing this package, and keeping a log switched off, imports neither pyarrow nor DuckDB.
"""
