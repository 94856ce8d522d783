"""The memory of this process, as Linux counts it."""


def memory(field):
    """Bytes of this process in memory.

    Args:
        field: `"VmRSS"` for now, `"VmHWM"` for the peak so far; of what there is now `"RssAnon"`,
            which the process took for itself, or `"RssFile"`, the pages of libraries and
            memory-mapped files.
    """
    with open("/proc/self/status") as file:
        values = dict(line.split(":", 1) for line in file)
    return 1024 * int(values[field].split()[0])
