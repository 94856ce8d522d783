"""What suites and studies share: cases, interleaved runs, processes that measure, tables."""
