"""The deployment files: valid, and with nothing open that need not be."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from ruamel.yaml import YAML

from tests.settings_table import defaults_in_readme, defaults_of_settings

ROOT = Path(__file__).parent.parent
COMPOSE = ROOT / "docker-compose.yml"
ELSEWHERE = ROOT / "docker-compose.worker.yml"
DOCKERFILE = ROOT / "docker" / "Dockerfile"
# Why a service has none; the file says so too.
NO_HEALTHCHECK = {"migrate": "runs once"}
ONLY_FOR_SERVE = {
    "LATHE_DATA_FOLDER": "`lathe serve` keeps everything in it; here there are volumes",
    "LATHE_API_HOST": "the image's command says where it listens inside, and LATHE_PUBLISH where outside",
    "LATHE_API_PORT": "as above",
    "LATHE_EMBEDDED": "`lathe serve` says by it that it is one",
}
FIXED = {
    "DATABASE_URL": "made of a password that is the operator's",
    "REDIS_URL": "as above",
    "LATHE_WORK_FOLDER": "a volume; the file says why",
}
SECRETS = ("POSTGRES_PASSWORD", "REDIS_PASSWORD", "LATHE_SECRET_KEY")


def load(path: Path = COMPOSE) -> dict[str, Any]:
    loaded: dict[str, Any] = YAML(typ="safe").load(path)
    return loaded


SERVICES: dict[str, dict[str, Any]] = load()["services"]
WORKERS: dict[str, dict[str, Any]] = load(ELSEWHERE)["services"]
OURS = [name for name, service in SERVICES.items() if "build" in service]
each_service = pytest.mark.parametrize("name", SERVICES)


@pytest.mark.parametrize("path", [COMPOSE, ELSEWHERE], ids=lambda path: path.name)
def test_the_file_fits_the_compose_specification(path: Path) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(path)]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_every_part_is_there() -> None:
    parts = {"postgres", "redis", "migrate", "api", "worker", "inspector", "housekeeping"}
    assert {name for name, service in SERVICES.items() if "profiles" not in service} == parts
    assert SERVICES["worker-training"]["profiles"] == ["training"]
    assert SERVICES["worker-gpu"]["profiles"] == ["gpu"]
    assert SERVICES["object-storage"]["profiles"] == ["object-storage"]


@each_service
def test_a_service_is_hardened(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert "privileged" not in service
    assert "cap_add" not in service
    if name not in OURS and name != "object-storage":  # the file says why that one is root, without capabilities
        assert not service["user"].startswith("0")


@each_service
def test_a_service_comes_back_and_says_how_it_is(name: str) -> None:
    service = SERVICES[name]
    assert service["restart"] == ("no" if name == "migrate" else "unless-stopped")
    asked = "test" in service.get("healthcheck", {})
    assert asked is (name not in NO_HEALTHCHECK)


@each_service
def test_an_image_is_pinned(name: str) -> None:
    tag = SERVICES[name]["image"].partition(":")[2]
    assert re.search(r"\d+\.\d+|\d{4}-\d{2}-\d{2}", tag), "a tag with a full version or a date"


@each_service
def test_only_the_api_is_reachable_from_outside(name: str) -> None:
    service = SERVICES[name]
    assert ("ports" in service) is (name == "api")
    # Housekeeping reaches out, to webhooks.
    assert ("frontend" in service["networks"]) is (name in ("api", "housekeeping"))


def test_the_api_is_published_on_this_host_alone_by_default() -> None:
    assert SERVICES["api"]["ports"] == ["${LATHE_PUBLISH:-127.0.0.1:8000}:8000"]
    assert load()["networks"]["backend"]["internal"] is True


@pytest.mark.parametrize("name", OURS)
def test_the_command_finds_the_api_from_a_container_of_its_own(name: str) -> None:
    url = urlsplit(SERVICES[name]["environment"]["LATHE_URL"])
    assert url.hostname == "api"
    assert SERVICES["api"]["ports"][0].endswith(f":{url.port}")


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_has_no_default(name: str) -> None:
    used = re.findall(rf"\$\{{{name}([^}}]*)\}}", COMPOSE.read_text())
    assert used
    assert all(rest.startswith(":?") for rest in used)
    assert f"\n{name}=\n" in (ROOT / ".env.example").read_text()


def test_the_example_works_nowhere_as_it_stands() -> None:
    lines = [line for line in (ROOT / ".env.example").read_text().splitlines() if line and not line.startswith("#")]
    assert lines == [f"{name}=" for name in SECRETS]


def test_object_storage_refuses_its_well_known_password() -> None:
    script = SERVICES["object-storage"]["entrypoint"][2].replace("$$", "$").replace("exec minio", "echo minio")
    refused = subprocess.run(["/bin/sh", "-c", script], env={}, capture_output=True, text=True, check=False)
    assert refused.returncode != 0
    assert "set AWS_ACCESS_KEY_ID in .env" in refused.stderr


def test_redis_keeps_what_it_is_told() -> None:
    script = SERVICES["redis"]["command"][2]
    assert "--appendonly yes" in script
    assert "--maxmemory-policy noeviction" in script


@pytest.mark.parametrize("name", OURS)
def test_what_can_be_set_reaches_every_service_that_reads_settings(name: str) -> None:
    environment = SERVICES[name]["environment"]
    settable = defaults_in_readme().keys() | defaults_of_settings().keys()
    assert settable - ONLY_FOR_SERVE.keys() - environment.keys() == set()
    for variable in environment.keys() & defaults_of_settings().keys() - FIXED.keys():
        # Absent unless set, required, or with a default: in each case it is the operator's.
        assert environment[variable] is None or f"${{{variable}:" in environment[variable], variable


@pytest.mark.parametrize("name", ["api", "worker", "inspector", "worker-training", "worker-gpu", "housekeeping"])
def test_a_part_waits_for_what_it_needs(name: str) -> None:
    assert SERVICES[name]["depends_on"] == {
        "migrate": {"condition": "service_completed_successfully"},
        "postgres": {"condition": "service_healthy"},
        "redis": {"condition": "service_healthy"},
    }


@each_service
def test_what_a_service_keeps_lies_in_a_volume_with_a_name(name: str) -> None:
    """One without a name outlives its container, and no later container gets it."""
    sources = [volume.partition(":")[0] for volume in SERVICES[name].get("volumes", [])]
    assert set(sources) <= load()["volumes"].keys()


def test_workers_share_the_folder_in_which_each_sweeps_what_dead_ones_left() -> None:
    workers = {name for name in OURS if name == "inspector" or name.startswith("worker")}
    folder = SERVICES["worker"]["environment"]["LATHE_WORK_FOLDER"]
    sharing = {name for name, service in SERVICES.items() if f"work:{folder}" in service.get("volumes", [])}
    assert sharing == workers
    # A volume that is new takes the folder's owner and mode from the image.
    assert re.search(rf"install -d -o lathe -g lathe -m 0700 .*{folder}\b", DOCKERFILE.read_text())


def test_every_kind_of_job_has_a_worker() -> None:
    commands = {name: " ".join(service.get("command", [])) for name, service in SERVICES.items()}
    assert commands["inspector"].endswith("-Q inspect")
    queues = {
        stage.split()[0]: re.findall(r'"-Q", "(\w+)"\]', stage)
        for stage in DOCKERFILE.read_text().split("\nFROM base AS ")[1:]
    }
    assert queues == {"api": [], "worker": ["cpu"], "worker-training": ["cpu"], "worker-gpu": ["gpu"]}


def test_torch_is_in_the_images_of_those_that_train_and_in_no_other() -> None:
    """Who finds torch takes jobs that train by itself; who has none is small."""
    extras = {
        stage.split()[0]: re.findall(r'"\.\[(.+)\]"', stage)
        for stage in DOCKERFILE.read_text().split("\nFROM build AS build-")[1:]
    }
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    with_torch = {extra for extra, needs in project.items() if any(need.startswith("torch=") for need in needs)}
    found = {image for image, named in extras.items() if with_torch & set(",".join(named).split(","))}
    assert found == {"worker-training", "worker-gpu"}


@pytest.mark.parametrize("name", OURS)
def test_an_image_of_ours_is_a_target_that_runs_as_nobody_in_particular(name: str) -> None:
    dockerfile = DOCKERFILE.read_text()
    target = SERVICES[name]["build"]["target"]
    assert re.search(rf"^FROM base AS {target}$", dockerfile, re.MULTILINE)
    base = dockerfile.partition(" AS base\n")[2].partition("\nFROM ")[0]
    assert "USER 10001:10001" in base
    assert "user" not in SERVICES[name]


def test_what_the_images_copy_exists_and_is_let_through() -> None:
    copied = {
        word
        for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE.read_text(), re.MULTILINE)
        for word in line.split()[:-1]
    }
    let_through = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert copied == let_through
    assert [name for name in copied if not (ROOT / name).exists()] == []


def test_workers_of_another_host_are_those_of_this_one() -> None:
    assert WORKERS.keys() == {name for name in OURS if name == "inspector" or name.startswith("worker")}
    another = {"environment", "env_file", "depends_on", "networks", "volumes"}
    for name, service in WORKERS.items():
        same = {key: value for key, value in SERVICES[name].items() if key not in another}
        assert {key: value for key, value in service.items() if key not in another} == same
        # All that they are told is in a file of the operator's; they wait for nobody, and nobody reaches them.
        assert service["env_file"] == ["worker.env"]
        assert not {"depends_on", "ports", "networks"} & service.keys()


def test_what_workers_of_another_host_are_told_is_what_they_need() -> None:
    (told,) = re.findall(r"\n```sh\n(DATABASE_URL=.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    names = {line.partition("=")[0] for line in told.splitlines() if not line.startswith("#")}
    required = {"DATABASE_URL", "REDIS_URL", "STORAGE_URL", "LATHE_SECRET_KEY"}
    assert required <= names <= SERVICES["worker"]["environment"].keys()
