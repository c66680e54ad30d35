"""The spool: frames in segments, written by workers, read by the flusher."""
