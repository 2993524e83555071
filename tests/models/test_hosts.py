"""The hosts that a command's options, or the variables of SLURM and Ray, name."""

import pytest

from chestxray.errors import InputError
from chestxray.models import hosts
from chestxray.models.hosts import Hosts, of_options

SLURM = {"SLURM_JOB_ID": "4097", "SLURM_NTASKS": "3", "SLURM_PROCID": "2"}


def test_one_host_is_none():
    assert of_options(None, None, None) is None
    assert of_options("1", None, None) is None
    assert (hosts.count(), hosts.index()) == (1, 0)
    assert hosts.share(8) == slice(0, 8)


def test_options_name_the_host():
    assert of_options("2", 1, "10.0.0.1:4000") == Hosts(2, 1, "10.0.0.1:4000")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((None, 1, None), "need --hosts"),
        (("two", None, None), "hosts must be a whole number from 1, or auto. Received: 'two'."),
        (("2", None, "a:1"), "needs --host-index"),
        (("2", 2, "a:1"), "host-index must be from 0 to 1. Received: 2."),
        (("2", 0, "a"), "coordinator must be HOST:PORT"),
        (("2", 0, "a:99999"), "coordinator must be HOST:PORT"),
        (("auto", 1, None), "come from the environment"),
    ],
)
def test_what_does_not_fit_together_is_a_line(options, said):
    with pytest.raises(InputError, match=said):
        of_options(*options)


@pytest.mark.parametrize(
    ("nodes", "first"),
    [("node7", "node7"), ("a-1,b-2", "a-1"), ("node[03-05,9]", "node03"), ("gpu[1,4]", "gpu1"), ("x9,y[1-2]", "x9")],
)
def test_slurm_names_the_hosts(monkeypatch, nodes, first):
    for name, value in {**SLURM, "SLURM_STEP_NODELIST": nodes}.items():
        monkeypatch.setenv(name, value)
    assert of_options("auto", None, None) == Hosts(3, 2, f"{first}:61441")


def test_ray_and_torchrun_name_the_hosts(monkeypatch):
    for name in (*SLURM, "SLURM_STEP_NODELIST"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(InputError, match="WORLD_SIZE"):
        of_options("auto", None, None)
    variables = {"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "10.1.1.1", "MASTER_PORT": "29500"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert of_options("auto", None, None) == Hosts(2, 1, "10.1.1.1:29500")
    monkeypatch.setenv("RANK", "first")
    with pytest.raises(InputError, match="cannot read"):
        of_options("auto", None, None)


def test_several_hosts_need_jax():
    with pytest.raises(InputError, match="JAX alone"):
        hosts.join(Hosts(2, 0, "127.0.0.1:1"))
