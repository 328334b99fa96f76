# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The methods of instances, and the life of the machine behind each."""

from __future__ import annotations

import asyncio
import logging
import uuid

from sandbox.machines import MachineError, MachineSpec
from sandbox.server import disks, instances, quotas
from sandbox.server.api import Call, serve
from sandbox.server.errors import ApiError, OperationError, invalid, stale
from sandbox.server.metadata import Metadata
from sandbox.server.operations import USER, Operations
from sandbox.server.state import Cloud, Key, Resource, check_labels, fingerprint, now

log = logging.getLogger("sandbox.server")

BASE = "zones/{zone}/instances"
ONE = f"{BASE}/{{instance}}"
SERIAL_LIMIT = 1 << 20
HOST_KEYS = "hostkeys"
BOOT_LIMIT = 600.0


async def _create(cloud: Cloud, key: Key, instance: Resource, spec: MachineSpec) -> None:
    async with cloud.machine(key):
        if instance["status"] == "PROVISIONING":
            instance["status"] = "STAGING"
            await cloud.thread(cloud.backend.create, spec)
            await _tell(cloud, key)


async def _tell(cloud: Cloud, key: Key) -> None:
    """Let a machine that runs find its metadata."""
    bound = await cloud.thread(cloud.backend.listen, key.project, key.name)
    if bound:
        cloud.metadata[key] = Metadata(bound)
        await cloud.metadata[key].start()


async def _silence(cloud: Cloud, key: Key) -> None:
    metadata = cloud.metadata.pop(key, None)
    if metadata:
        await metadata.stop()


async def _destroy(cloud: Cloud, key: Key) -> None:
    async with cloud.machine(key):
        await _silence(cloud, key)
        await cloud.thread(cloud.backend.delete, key.project, key.name)


async def _boot(
    call: Call, operation: Resource, key: Key, instance: Resource, place: instances.Place
) -> None:
    await call.operations.elapse(operation, 0.2)
    spec = instances.machine_spec(call.cloud, key, instance, place)
    creation = _create(call.cloud, key, instance, spec)
    try:
        await asyncio.gather(creation, call.operations.elapse(operation, 0.8))
    except MachineError as error:
        raise OperationError("INTERNAL_ERROR", f"sandbox: {error}", 503) from error
    if instance["status"] != "STAGING":
        raise OperationError("RESOURCE_NOT_READY", f"The resource '{key.path}' was deleted.")
    instance.update(status="RUNNING", lastStartTimestamp=now())
    _light_fuse(call.cloud, call.operations, key, instance)


def _light_fuse(cloud: Cloud, operations: Operations, key: Key, instance: Resource) -> None:
    seconds = instances.max_run_seconds(instance)
    if not seconds:
        return
    action = instance["scheduling"]["instanceTerminationAction"]

    async def burn() -> None:
        await asyncio.sleep(seconds)
        if cloud.find(key) is instance and instance["status"] != "STOPPING":
            log.info("%s has run for its %d s: %s", key.path, seconds, action)
            (_delete if action == "DELETE" else _stop)(cloud, operations, key, user="system")

    operations.spawn(burn())


def _stop(cloud: Cloud, operations: Operations, key: Key, user: str = USER) -> Resource:
    instance = cloud.find(key)
    assert instance is not None
    before, instance["status"] = instance["status"], "STOPPING"

    async def work(operation: Resource) -> None:
        try:
            await operations.elapse(operation)
        except OperationError:
            instance["status"] = before
            raise
        async with cloud.machine(key):
            await cloud.thread(cloud.backend.stop, key.project, key.name)
            await _silence(cloud, key)
        instance.update(status="TERMINATED", lastStopTimestamp=now())

    return operations.start("stop", key, work, user=user)


def _delete(cloud: Cloud, operations: Operations, key: Key, user: str = USER) -> Resource:
    instance = cloud.find(key)
    assert instance is not None
    before, instance["status"] = instance["status"], "STOPPING"
    cloud.busy.add(key)

    async def work(operation: Resource) -> None:
        try:
            await operations.elapse(operation, 0.0)
            await asyncio.gather(_destroy(cloud, key), operations.elapse(operation))
            disks.remove_instance(cloud, key)
        except OperationError:
            instance["status"] = before
            raise
        finally:
            cloud.busy.discard(key)

    return operations.start("delete", key, work, user=user)


def preempt(cloud: Cloud, operations: Operations, key: Key, notice: float) -> Resource:
    """Take an instance away as Compute Engine does when it needs a spot machine's place; return the operation.

    The machine's metadata tells of it so many seconds before. Where there is a shutdown in it at Compute Engine, here
    its power is cut at the end.
    """
    instance = cloud.find(key)
    assert instance is not None
    action = instance["scheduling"].get("instanceTerminationAction", "STOP")
    instance["status"] = "STOPPING"

    async def work(operation: Resource) -> None:
        metadata = cloud.metadata.get(key)
        if metadata:
            metadata.preempt()
            await asyncio.sleep(notice)
        # Somebody may have deleted it meanwhile.
        if cloud.find(key) is instance and key not in cloud.busy:
            end = (_delete if action == "DELETE" else _stop)(cloud, operations, key, user="system")
            await operations.wait(_operation_key(key, end))

    return operations.start("compute.instances.preempted", key, work, user="system")


@serve("instances.insert", "POST", BASE)
async def insert_instance(call: Call) -> Resource:
    """Make an instance; the operation is done when its machine runs."""
    [key] = instances.vacant(call, [(call.body.get("name", ""), "resource.name")])
    instances.check(call, call.body)
    place = instances.place_of(call, call.body)
    instance = _allocated(call, [key], call.body, place)[0]

    async def work(operation: Resource) -> None:
        try:
            quotas.check(call.cloud, key)
            await _boot(call, operation, key, instance, place)
        except BaseException:
            disks.remove_instance(call.cloud, key)
            raise

    return call.operations.start("insert", key, work)


def _allocated(
    call: Call, keys: list[Key], body: Resource, place: instances.Place
) -> list[Resource]:
    wanted = body["networkInterfaces"][0].get("networkIP")
    free = instances.free_addresses(call.cloud, place, 1 << 16 if wanted else len(keys))
    if wanted:
        if wanted not in free or len(keys) > 1:
            why = "The address is in use or not in the subnetwork."
            raise invalid("resource.networkInterfaces[0].networkIP", wanted, why)
        free = [wanted]
    if len(free) < len(keys):
        raise instances.exhausted(place.subnetwork)
    made = []
    for key, address in zip(keys, free, strict=True):
        instance = instances.build(call, key, body, place, address)
        call.cloud.put(key, instance)
        disks.attach(call, instance, body)
        made.append(instance)
    return made


@serve("instances.bulkInsert", "POST", f"{BASE}/bulkInsert")
async def bulk_insert(call: Call) -> Resource:
    """Make many instances; those that fail take the others with them unless minCount is reached."""
    body = call.body.get("instanceProperties")
    if body is None:
        raise ApiError(
            400, "required", "Required field 'resource.instanceProperties' not specified"
        )
    keys = instances.vacant(call, instances.bulk_names(call.body))
    instances.check(call, body)
    place = instances.place_of(call, body)
    made = _allocated(call, keys, body, place)
    least = int(call.body.get("minCount") or len(keys))
    group = str(uuid.uuid4())

    async def work(operation: Resource) -> None:
        await _bulk(call, operation, list(zip(keys, made, strict=True)), place, least)

    return call.operations.start("bulkInsert", call.key("-"), work, group=group, bulk=True)


async def _bulk(
    call: Call,
    operation: Resource,
    made: list[tuple[Key, Resource]],
    place: instances.Place,
    least: int,
) -> None:
    status: Resource = {"status": "CREATING", "targetVmCount": len(made), "createdVmCount": 0}
    operation["instancesBulkInsertOperationMetadata"] = {"perLocationStatus": {call.scope: status}}
    failures: list[OperationError] = []
    try:
        quotas.check(call.cloud, made[0][0])
    except OperationError:
        for key, _unused in made:
            disks.remove_instance(call.cloud, key)
        raise
    fault = call.operations.disarm(operation)
    if fault is not None and fault.at == "hang":
        await fault.strike()

    def part(key: Key, instance: Resource) -> Resource:
        async def work(child: Resource) -> None:
            try:
                await _boot(call, child, key, instance, place)
                status["createdVmCount"] += 1
                operation["progress"] = 100 * status["createdVmCount"] // len(made)
            except OperationError as error:
                failures.append(error)
                raise
            finally:
                if instance["status"] != "RUNNING":
                    disks.remove_instance(call.cloud, key)

        group = operation["operationGroupId"]
        return call.operations.start("insert", key, work, group=group)

    children = [part(key, instance) for key, instance in made]
    if fault is not None and fault.at == "operation":
        for child in children[: fault.fail_count or None]:
            call.operations.arm(child, fault)
    ends = [_operation_key(made[0][0], child) for child in children]
    await asyncio.gather(*(call.operations.wait(end, BOOT_LIMIT) for end in ends))
    created = [key for key, instance in made if call.cloud.find(key) is instance]
    short = len(made) - len(failures) < least
    if short:
        status["status"] = "ROLLING_BACK"
        undo = [_operation_key(key, _delete(call.cloud, call.operations, key)) for key in created]
        await asyncio.gather(*(call.operations.wait(key) for key in undo))
        status["deletedVmCount"] = len(created)
    status.update(status="DONE", failedToCreateVmCount=len(failures))
    if short:
        raise failures[0]


def _operation_key(instance: Key, operation: Resource) -> Key:
    return Key(instance.project, instance.scope, "operations", operation["name"])


@serve("instances.delete", "DELETE", ONE)
async def delete_instance(call: Call) -> Resource:
    """Delete an instance; deleting one that is being deleted returns that operation."""
    key, instance = call.existing()
    if instance["deletionProtection"]:
        why = f"Resource cannot be deleted if it's protected against deletion. {key.path}"
        raise invalid("resource.deletionProtection", "true", why)
    if key in call.cloud.busy:
        for operation in call.cloud.table(call.project, "operations").values():
            running = operation["status"] != "DONE" and operation["operationType"] == "delete"
            if running and operation["targetLink"] == key.link:
                return operation
    return _delete(call.cloud, call.operations, key)


@serve("instances.stop", "POST", f"{ONE}/stop")
async def stop_instance(call: Call) -> Resource:
    """Stop an instance. The sandbox cannot start it again."""
    key, _unused = call.settled()
    return _stop(call.cloud, call.operations, key)


@serve("instances.setLabels", "POST", f"{ONE}/setLabels")
async def set_labels(call: Call) -> Resource:
    """Replace the labels; the fingerprint has to be the current one."""
    key, instance = call.existing()
    labels = check_labels(call.body.get("labels"))
    if call.body.get("labelFingerprint") != instance["labelFingerprint"]:
        raise stale("Labels")

    async def work(operation: Resource) -> None:
        await call.operations.elapse(operation)
        instance.update(labels=labels, labelFingerprint=fingerprint(labels))
        if not labels:
            del instance["labels"]

    return call.operations.start("setLabels", key, work)


@serve("instances.setMetadata", "POST", f"{ONE}/setMetadata")
async def set_metadata(call: Call) -> Resource:
    """Replace the metadata; the fingerprint has to be the current one."""
    key, instance = call.existing()
    metadata = instances.check_metadata(call.body)
    if call.body.get("fingerprint") != instance["metadata"]["fingerprint"]:
        raise ApiError(
            412,
            "conditionNotMet",
            "Supplied fingerprint does not match current metadata fingerprint.",
        )

    async def work(operation: Resource) -> None:
        await call.operations.elapse(operation)
        instance["metadata"] = metadata
        await let_in(call.cloud, key, instance)

    return call.operations.start("setMetadata", key, work)


async def let_in(cloud: Cloud, key: Key, instance: Resource) -> None:
    """Tell a machine that runs whom it shall let in."""
    keys = instances.let_in(cloud, instance)
    async with cloud.machine(key):
        if instance["status"] == "RUNNING":
            await cloud.thread(cloud.backend.set_ssh_keys, key.project, key.name, keys)


@serve("instances.getSerialPortOutput", "GET", f"{ONE}/serialPort")
async def serial_port_output(call: Call) -> Resource:
    """Return the console's output from a byte on; at most the last MiB."""
    key, _unused = call.existing()
    text = await call.cloud.thread(call.cloud.backend.serial, key.project, key.name)
    data = text.encode()
    start = max(int(call.query.get("start", 0)), len(data) - SERIAL_LIMIT, 0)
    return {
        "kind": "compute#serialPortOutput",
        "contents": data[start:].decode(errors="replace"),
        "start": str(start),
        "next": str(max(start, len(data))),
        "selfLink": f"{key.link}/serialPort",
    }


@serve("instances.getGuestAttributes", "GET", f"{ONE}/getGuestAttributes")
async def guest_attributes(call: Call) -> Resource:
    """Return the host keys that the machine has published."""
    key, instance = call.existing()
    if not instances.guest_attributes_on(instance):
        raise ApiError(412, "conditionNotMet", "Guest attributes endpoint access is disabled.")
    path = call.query.get("queryPath") or call.query.get("variableKey") or ""
    namespace, _unused, wanted = path.partition("/")
    found = await call.cloud.thread(call.cloud.backend.host_keys, key.project, key.name)
    items = [
        {"namespace": HOST_KEYS, "key": kind, "value": value}
        for kind, value in sorted(found.items())
        if namespace in ("", HOST_KEYS) and wanted in ("", kind)
    ]
    if not items:
        text = f"The resource '{path}' of type 'Guest Attribute' was not found."
        raise ApiError(404, "notFound", text)
    link = f"{key.link}/guestAttributes/{path}"
    answer: Resource = {"kind": "compute#guestAttributes", "selfLink": link}
    if call.query.get("variableKey"):
        return {**answer, "variableKey": path, "variableValue": items[0]["value"]}
    return {**answer, "queryPath": path, "queryValue": {"items": items}}
