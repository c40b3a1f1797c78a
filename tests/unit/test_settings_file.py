"""What the environment and config.toml say, and how it is told when they are wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.core.actions import Deadlines
from orchestrator.errors import BadJobFile
from orchestrator.settings import load_settings


def load(folder: Path, text: str = "", **environ: str):
    (folder / "config.toml").write_text(text)
    return load_settings({"GPUJOB_HOME": str(folder), **environ})


def test_without_a_file_everything_is_as_it_comes(tmp_path: Path) -> None:
    settings = load_settings({"GPUJOB_HOME": str(tmp_path)})
    assert settings.deadlines == Deadlines()
    assert not settings.private_home
    assert settings.paces["runpod"].poll_s is None


def test_the_tables_are_taken_in(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        "[local]\nprivate_home = true\nusd_per_hour = 2\n"
        "[runpod]\npoll_s = 2\nlisting_lag_s = 0\nassign_s = 30.5\n"
        '[thunder]\nuser = "ubuntu"\nendpoint_s = 9\n'
        "[deadlines]\ndrain_s = 60\n",
    )
    assert (settings.private_home, settings.usd_per_hour) == (True, 2)
    pace = settings.paces["runpod"]
    assert (pace.poll_s, pace.listing_lag_s, pace.assign_s) == (2, 0, 30.5)
    assert (settings.paces["thunder"].user, settings.paces["thunder"].endpoint_s) == ("ubuntu", 9)
    assert settings.deadlines == Deadlines(drain_s=60)


WRONG = {
    "a table": ("[runpot]\n", "there is no table [runpot]; did you mean runpod?"),
    "a key": ("[runpod]\npol_s = 1\n", "[runpod] has no key pol_s; did you mean poll_s?"),
    "a key of another table": ('[runpod]\nuser = "me"\n', "[runpod] has no key user"),
    "no table": ("runpod = 3\n", "runpod has to be a table"),
    "a word": ('[deadlines]\ndrain_s = "long"\n', "[deadlines] drain_s has to be a number"),
    "a switch as a number": ("[thunder]\npoll_s = true\n", "[thunder] poll_s has to be a number"),
    "never": ("[runpod]\nassign_s = inf\n", "[runpod] assign_s has to be a number"),
    "no pause": ("[runpod]\npoll_s = 0\n", "poll_s has to be a number of seconds, more than 0"),
    "less than nothing": ("[local]\nusd_per_hour = -1\n", "[local] usd_per_hour"),
    "a number as a switch": ("[local]\nprivate_home = 1\n", "[local] private_home has to be true"),
    "a user who is a command": ('[thunder]\nuser = "-oProxy"\n', "user has to be a user's name"),
    "no TOML": ("[runpod\n", "cannot be read"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_config_that_is_wrong(tmp_path: Path, case: str) -> None:
    text, words = WRONG[case]
    with pytest.raises(BadJobFile) as error:
        load(tmp_path, text)
    assert words in error.value.message
    assert str(tmp_path / "config.toml") in error.value.message


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(BadJobFile) as error:
        load(tmp_path, "[runpod]\npol_s = 1\nstart_s = 'x'\n[deadline]\n")
    for word in ("pol_s", "start_s", "[deadline]; did you mean deadlines?"):
        assert word in error.value.message


def test_keys_and_addresses_come_from_the_environment_and_keys_are_not_shown(
    tmp_path: Path,
) -> None:
    settings = load(
        tmp_path, RUNPOD_API_KEY="sekret-1", TNR_API_TOKEN=" ", TNR_API_URL="http://here:1"
    )
    assert settings.keys == {"runpod": "sekret-1"}
    assert settings.urls == {"thunder": "http://here:1"}
    assert "sekret-1" not in repr(settings)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, None),
        ({"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}, ("a", "b", "")),
        (
            {
                "AWS_ACCESS_KEY_ID": "a",
                "AWS_SECRET_ACCESS_KEY": "b",
                "GPUJOB_S3_KEY_ID": "c",
                "GPUJOB_S3_SECRET": "d",
            },
            ("c", "d", ""),
        ),
        # Halves of two pairs are no pair.
        ({"AWS_SECRET_ACCESS_KEY": "b", "GPUJOB_S3_KEY_ID": "c"}, None),
        (
            {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_SESSION_TOKEN": "t"},
            ("a", "b", "t"),
        ),
    ],
    ids=["none", "aws", "ours first", "halves", "temporary"],
)
def test_which_pair_the_environment_has(tmp_path: Path, environ, expected) -> None:
    found = load(tmp_path, **environ).pairs.get("s3")
    assert (found and (found.key_id, found.secret, found.token)) == expected


def test_where_s3_is(tmp_path: Path) -> None:
    settings = load(tmp_path, '[s3]\nendpoint_url = "https://s3.example.org"\nregion = "eu-1"\n')
    assert (settings.s3_endpoint_url, settings.s3_region) == ("https://s3.example.org", "eu-1")
    assert load(tmp_path, '[s3]\nendpoint_url = "http://127.0.0.1:9000"\n').s3_endpoint_url


@pytest.mark.parametrize(
    "url",
    ["http://s3.example.org", "http://127.0.0.1.example.org", "ftp://x", "https://a b"],
    ids=str,
)
def test_keys_go_in_the_open_to_this_machine_alone(tmp_path: Path, url: str) -> None:
    with pytest.raises(BadJobFile, match="endpoint_url has to be an https:// address"):
        load(tmp_path, f'[s3]\nendpoint_url = "{url}"\n')
