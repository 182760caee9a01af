"""Reads a relay with Python's atproto, verifies signatures with its crypto, and says what it has seen.

    python read_python.py ws://RELAY http://PLC
"""

import json
import sys
import threading

import libipld
from atproto import CAR, FirehoseSubscribeReposClient, IdResolver, models, parse_subscribe_repos_message
from atproto_crypto.verify import verify_signature
from atproto_identity.cache.in_memory_cache import DidInMemoryCache

service, plc_url = sys.argv[1:3]
# Who asked the directory for each event would fall behind a busy stream until its pings time out.
resolver = IdResolver(plc_url=plc_url, cache=DidInMemoryCache())
verified = set()
repos = models.ComAtprotoSyncSubscribeRepos


def say(**what):
    print(json.dumps(what), flush=True)


def check(did, blocks):
    """Checks that the commit at a CAR's root is the account's, signed with the key in the directory.

    A host that has taken an account over sends the old host's last commit again, as #sync: what has been verified
    under the old key is not verified under the new one.
    """
    header, found = libipld.decode_car(blocks)
    car, root = CAR.from_bytes(blocks), header["roots"][0]
    if (did, root) in verified:
        return car
    commit = dict(found[root])
    signature = commit.pop("sig")
    assert commit["did"] == did, "another account's commit"
    unsigned = libipld.encode_dag_cbor(commit)
    keys = (resolver.did.resolve_atproto_key(did, refresh) for refresh in (False, True))
    assert any(verify_signature(key, unsigned, signature) for key in keys), "bad signature"
    verified.add((did, root))
    return car


def read(message):
    try:
        event = parse_subscribe_repos_message(message)
        kind, did = type(event).__name__.lower(), getattr(event, "repo", None) or event.did
        if isinstance(event, repos.Commit):
            car = check(did, event.blocks)
            last = {op.path: op.cid for op in event.ops}  # a key may be made and deleted in one commit
            missing = [path for path, cid in last.items() if cid and cid not in car.blocks]
            assert not missing, f"records missing: {missing}"
        elif isinstance(event, repos.Sync):
            check(did, event.blocks)
        say(kind=kind, seq=event.seq, did=did)
        # Without events for some time it connects anew, at this cursor.
        client.update_params(repos.Params(cursor=event.seq))
    except Exception as error:  # Whatever it is, the test wants to hear of it.
        say(error=f"{type(error).__name__}: {error}")


def stop_with_stdin():
    sys.stdin.read()
    client.stop()


client = FirehoseSubscribeReposClient(repos.Params(cursor=0), base_uri=service + "/xrpc")
threading.Thread(target=stop_with_stdin, daemon=True).start()
say(started=True)
client.start(read, lambda error: say(error=f"{type(error).__name__}: {error}"))
