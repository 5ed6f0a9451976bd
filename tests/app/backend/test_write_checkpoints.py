"""Write checkpoints: one counter per user and client, and its way into the stream."""

from __future__ import annotations

import pytest

from .harness import Replica, User, put


async def count_up(user: User, client_id: str = "client") -> str:
    answer = await user.http.get("/write-checkpoint2.json", params={"client_id": client_id})
    assert answer.status_code == 200
    return answer.json()["data"]["write_checkpoint"]


async def ask_for(user: User, checkpoint: str, client_id: str = "client") -> str:
    body = {"client_id": client_id, "checkpoint_request_id": checkpoint}
    answer = await user.http.post("/sync/checkpoint-request", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]["checkpoint_request_id"]


async def test_all_three_ways_share_one_counter(ann: User) -> None:
    assert await count_up(ann) == "1"
    assert await count_up(ann) == "2"
    assert await ask_for(ann, "8") == "8"
    assert await count_up(ann) == "9"
    assert await ask_for(ann, "4") == "9"
    body = {"user_id": "ann", "client_id": "client"}
    assert (await ann.http.put("/api/data/checkpoint", json=body)).json() == {"checkpoint": 10}
    assert await ask_for(ann, "9223372036854775807") == "9223372036854775807"


async def test_every_client_of_every_user_has_its_own(ann: User, bob: User) -> None:
    assert await ask_for(ann, "5") == "5"
    assert await count_up(ann, "another") == "1"
    assert await count_up(bob) == "1"
    assert (await bob.synced()).write_checkpoint == 1
    assert (await ann.synced()).write_checkpoint == 5
    assert (await ann.synced(client_id="third")).write_checkpoint is None


@pytest.mark.parametrize("checkpoint", ["0", "00", "-1", "+1", "1.0", "x", "", "٣", "9223372036854775808", 1, None])
async def test_a_wrong_id_is_refused(ann: User, checkpoint: object) -> None:
    body = {"client_id": "client", "checkpoint_request_id": checkpoint}
    answer = await ann.http.post("/sync/checkpoint-request", json=body)
    assert answer.status_code == 400
    assert (await ann.synced()).write_checkpoint is None


async def test_nobody_counts_for_another_user(ann: User, bob: User) -> None:
    body = {"user_id": "bob", "client_id": "client"}
    assert (await ann.http.put("/api/data/checkpoint", json=body)).status_code == 403
    assert (await bob.synced()).write_checkpoint is None


async def test_a_request_is_a_diff_of_its_own_even_if_its_value_stays(ann: User) -> None:
    replica = Replica()
    async with ann.stream() as lines:
        await replica.take_checkpoint(lines)
        assert replica.write_checkpoint is None
        for ask, expected in ((count_up(ann), 1), (ask_for(ann, "100"), 100), (ask_for(ann, "7"), 100)):
            await ask
            diff, complete = await lines.checkpoint()
            assert diff == (
                "checkpoint_diff",
                {
                    "last_op_id": "0",
                    "write_checkpoint": str(expected),
                    "removed_buckets": [],
                    "updated_buckets": [],
                },
            )
            assert complete == ("checkpoint_complete", {"last_op_id": "0"})


async def test_a_write_checkpoint_never_comes_before_the_writes_it_follows(ann: User) -> None:
    replica = Replica()
    async with ann.stream() as lines:
        await replica.take_checkpoint(lines)
        for number in range(1, 21):
            await ann.write(put("lists", f"l{number}", name="N"))
            await count_up(ann)
            while replica.write_checkpoint != number:
                await replica.take_checkpoint(lines)
            assert f"l{number}" in replica.rows("lists")


async def test_a_diff_with_data_carries_the_present_write_checkpoint(ann: User) -> None:
    await ask_for(ann, "3")
    replica = Replica()
    async with ann.stream() as lines:
        await replica.take_checkpoint(lines)
        assert replica.write_checkpoint == 3
        await ann.write(put("lists", "l", name="N"))
        await replica.take_checkpoint(lines)
        assert replica.write_checkpoint == 3
        assert set(replica.rows("lists")) == {"l"}


async def test_the_other_clients_stream_stays_silent(ann: User, bob: User) -> None:
    replica = Replica()
    async with ann.stream() as lines:
        await replica.take_checkpoint(lines)
        await count_up(ann, "another")
        await count_up(bob)
        await bob.write(put("lists", "b", name="N"))
        await ann.write(put("lists", "l", name="N"))
        await replica.take_checkpoint(lines)
        assert replica.write_checkpoint is None
        assert set(replica.rows("lists")) == {"l"}
