"""A throw-away guest as libvirt's domain XML."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr


@dataclass(frozen=True)
class Wire:
    """A guest's second network card: the Ethernet frames go as datagrams between two unix sockets.

    ``ours`` is where the emulator listens, ``switch`` is where it sends to; a path of either has at most 107 bytes.
    """

    ours: Path
    switch: Path
    mac: str


@dataclass(frozen=True)
class DomainSpec:
    """What a guest is made of; ``memory_mib`` in MiB, ``domain_type`` is kvm or qemu.

    ``first_packets`` is a file that what the guest sends is written to (pcap, the first bytes of each packet) until
    the object FIRST_PACKETS is removed: it tells when the guest has a network, without a single packet to it.
    """

    name: str
    disk: Path
    console: Path
    emulator: str
    domain_type: str
    memory_mib: int = 768
    vcpus: int = 1
    isolated: bool = True
    first_packets: Path | None = None
    wire: Wire | None = None


#: The name of the object that writes ``first_packets``, for the monitor to remove.
FIRST_PACKETS = "firstpackets"
#: Bytes at the start of the file of packets that are there before any packet is.
EMPTY_DUMP = 24


def domain_xml(spec: DomainSpec) -> str:
    """The domain: BIOS, a virtio disk, the serial console in a file, ssh forwarded from a free loopback port.

    An isolated guest reaches nothing outside, not even the host it runs on; only the forwarded port leads in, and its
    ``wire`` to the guests of the same cluster.
    """
    restrict = "on" if spec.isolated else "off"
    # Port 0: the kernel chooses, and the monitor tells which (guests.py); a port chosen here could be lost.
    network = f"user,id=guestnet,restrict={restrict},hostfwd=tcp:127.0.0.1:0-:22"
    # Appended to, so that the file can be shortened while the guest writes (console_limit.py).
    serial = f"<source path={quoteattr(str(spec.console))} append='on'/>"
    # The disk is thrown away with the guest, so no write needs to reach the medium: cache=unsafe.
    return f"""\
<domain type={quoteattr(spec.domain_type)} xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>{escape(spec.name)}</name>
  <memory unit='MiB'>{spec.memory_mib}</memory>
  <vcpu>{spec.vcpus}</vcpu>
  <os><type arch='x86_64' machine='q35'>hvm</type></os>
  <features><acpi/></features>
  <cpu mode='maximum'/>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    <emulator>{escape(spec.emulator)}</emulator>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2' cache='unsafe' discard='unmap'/>
      <source file={quoteattr(str(spec.disk))}/>
      <target dev='vda' bus='virtio'/>
    </disk>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
    <rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>
    <serial type='file'>{serial}<target port='0'/></serial>
    <console type='file'>{serial}<target type='serial' port='0'/></console>
  </devices>
  <qemu:commandline>
    <qemu:arg value='-netdev'/>
    <qemu:arg value='{network}'/>
    <qemu:arg value='-device'/>
    <qemu:arg value='virtio-net-pci,netdev=guestnet,addr=0x10,romfile='/>
{_packet_dump(spec)}{_second_card(spec.wire)}  </qemu:commandline>
</domain>
"""


def _packet_dump(spec: DomainSpec) -> str:
    if not spec.first_packets:
        return ""
    dump = {"qom-type": "filter-dump", "id": FIRST_PACKETS, "netdev": "guestnet", "queue": "rx", "maxlen": 64}
    filter_argument = quoteattr(json.dumps(dump | {"file": str(spec.first_packets)}))
    return f"    <qemu:arg value='-object'/>\n    <qemu:arg value={filter_argument}/>\n"


def _second_card(wire: Wire | None) -> str:
    if not wire:
        return ""
    ends = {
        name: {"type": "unix", "path": str(path)} for name, path in (("local", wire.ours), ("remote", wire.switch))
    }
    argv = (
        *("-netdev", json.dumps({"type": "dgram", "id": "cluster"} | ends)),
        # After the first card on the bus, so that the first one stays eth0 where names are given in that order.
        *("-device", f"virtio-net-pci,netdev=cluster,mac={wire.mac},addr=0x11,romfile="),
    )
    return "".join(f"    <qemu:arg value={quoteattr(argument)}/>\n" for argument in argv)
