"""libvirt's Python modules, set before they load to keep their log off our standard error.

An embedded driver logs like a daemon does, about every guest and cgroup; what matters is raised as an error anyway.
"""

import os

import libvirt
import libvirt_qemu

os.environ.setdefault("LIBVIRT_LOG_OUTPUTS", "4:file:/dev/null")  # read once, when libvirt is loaded

__all__ = ["libvirt", "libvirt_qemu"]
