"""The project's checks, each in an environment of its own: `nox -s NAME`."""

import os
from pathlib import Path

import nox

nox.options.sessions = ["lint", "types", "tests", "docs"]
nox.options.default_venv_backend = "venv"


@nox.session(python=["3.11", "3.12", "3.13"])
def tests(session: nox.Session) -> None:
    """The quick suite, as in the README."""
    session.install("-e", ".[test]")
    session.run("pytest", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff: rules and format."""
    session.install("ruff>=0.8")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Mypy: strict on package, benchmarks and scripts; tests may leave out annotations."""
    session.install("-e", ".[dev]")
    session.run("mypy")


@nox.session
def coverage(session: nox.Session) -> None:
    """Which lines the quick suite runs, in worker and server processes too: coverage.md and htmlcov/; no gate."""
    session.install("-e", ".[test]", "coverage>=7.10", "pytest-cov>=7")
    session.run("pytest", "--cov", "--cov-report=", *session.posargs)
    session.run("coverage", "html", "--quiet")
    with Path("coverage.md").open("w", encoding="utf-8") as page:
        session.run("coverage", "report", "--format=markdown", stdout=page)


@nox.session
def docs(session: nox.Session) -> None:
    """The generated reference is current, links resolve, and every block and example runs."""
    session.install("-e", ".[test]")
    session.run("python", "docs/make_cli_reference.py", "--check")
    session.run("python", "docs/make_profile_tables.py", "--check")
    session.run("python", "docs/make_failure_table.py", "--check")
    # two at a time: they wait for windows rather than compute
    session.run("pytest", "--dist", "load", "-m", "docs or not docs", "tests/docs", *session.posargs)


@nox.session
def engines(session: nox.Session) -> None:
    """The whole job on a real vLLM and a real SGLang on CPU, which this session sets up as root (about 8 GB)."""
    session.install("-e", ".[test]")
    home = Path(os.environ.get("AUTOTUNE_ENGINES", session.cache_dir / "engines")).absolute()
    session.run("python", "tests/real/setup_engines.py", str(home))
    # two at a time: most of a test is the start of a server, which takes one core
    session.run(
        "pytest",
        "-n",
        "2",
        "-m",
        "(engine or processes) and not docker",
        "tests/real",
        "tests/test_plans.py",
        *session.posargs,
        env={
            "AUTOTUNE_TEST_CONFIGURATIONS": "500",
            "AUTOTUNE_TEST_VLLM": str(home / "vllm"),
            "AUTOTUNE_TEST_SGLANG": str(home / "sglang"),
            "AUTOTUNE_TEST_SGLANG_ROUTER": str(home / "sglang-router"),
            "AUTOTUNE_TEST_MODEL": str(home / "tiny-model"),
        },
    )


@nox.session
def dynamo(session: nox.Session) -> None:
    """Profiles read by Dynamo's real planner, and measured on its real mocker, which this session sets up (3 GB)."""
    session.install("-e", ".[test]")
    home = Path(os.environ.get("AUTOTUNE_DYNAMO", session.cache_dir / "dynamo")).absolute()
    session.run("python", "tests/dynamo/setup_dynamo.py", str(home))
    arguments = ["-n", "0", "-m", "dynamo", "tests/dynamo", *session.posargs]
    session.run("pytest", *arguments, env={"AUTOTUNE_TEST_DYNAMO": str(home)})


@nox.session
def docker(session: nox.Session) -> None:
    """The Docker launcher on a real Docker Engine and a real vLLM in it, which this session sets up as root."""
    session.install("-e", ".[test]")
    cache = Path(os.environ.get("AUTOTUNE_ENGINES", session.cache_dir / "engines")).absolute()
    home = Path(os.environ.get("AUTOTUNE_DOCKER", session.cache_dir / "docker")).absolute()
    session.run("python", "tests/docker/setup_docker.py", "--vllm", str(cache), str(home))
    try:
        session.run(
            "pytest",
            "-n",
            "0",
            "-m",
            "docker",
            "tests/docker",
            "tests/real",
            *session.posargs,
            env={"AUTOTUNE_TEST_VLLM": str(cache / "vllm"), "AUTOTUNE_TEST_MODEL": str(cache / "tiny-model")},
        )
    finally:
        session.run("python", "tests/docker/setup_docker.py", "--stop", str(home))


@nox.session
def cluster(session: nox.Session) -> None:
    """Runs on a real Kubernetes control plane, which this session builds from Debian's source as root (1 GB)."""
    session.install("-e", ".[test]")
    home = Path(os.environ.get("AUTOTUNE_CLUSTER", session.cache_dir / "cluster")).absolute()
    # 3: the mirror of this machine lacks the packages
    session.run("python", "tests/cluster/setup_cluster.py", str(home), success_codes=[0, 3])
    if not (home / "bin" / "kube-apiserver").exists():
        session.warn("No control plane can be had here: the same is tested on the small API server of the quick suite.")
        session.run("pytest", "-n", "0", "-m", "not cluster", "tests/launchers/kubernetes", *session.posargs)
        return
    arguments = ["-n", "0", "-m", "cluster", "tests/cluster", *session.posargs]
    session.run("pytest", *arguments, env={"AUTOTUNE_TEST_CLUSTER": str(home)})


@nox.session
def gateways(session: nox.Session) -> None:
    """Load tests of a real vLLM and Dynamo, direct and through real gateways, which this session sets up as root."""
    session.install("-e", ".[test]")
    engines_home = Path(os.environ.get("AUTOTUNE_ENGINES", session.cache_dir / "engines")).absolute()
    home = Path(os.environ.get("AUTOTUNE_GATEWAYS", session.cache_dir / "gateways")).absolute()
    session.run("python", "tests/real/setup_vllm.py", str(engines_home))
    session.run("python", "tests/gateways/setup_gateways.py", str(home))
    session.run(
        "python",
        "tests/gateways/loopback_only.py",
        "pytest",
        "-n",
        "0",
        "-m",
        "gateways",
        "tests/gateways",
        *session.posargs,
        env={
            "AUTOTUNE_TEST_GATEWAYS": str(home),
            "AUTOTUNE_TEST_VLLM": str(engines_home / "vllm"),
            "AUTOTUNE_TEST_MODEL": str(engines_home / "tiny-model"),
        },
    )


@nox.session
def hosts(session: nox.Session) -> None:
    """Trials on other hosts: a real Slurm and a real Ray cluster on loopback, which this session sets up."""
    session.install("-e", ".[test]")
    home = Path(os.environ.get("AUTOTUNE_HOSTS", session.cache_dir / "hosts")).absolute()
    session.run("python", "tests/hosts/setup_slurm.py", str(home / "slurm"))
    # the executors' contract too, on the real Slurm
    session.run(
        "pytest",
        "-n",
        "0",
        "-m",
        "hosts or processes",
        "-k",
        "hosts or slurm",
        "--ignore=tests/hosts/test_ray.py",
        "tests/hosts",
        "tests/execute/test_contract.py",
        *session.posargs,
        env={"AUTOTUNE_TEST_SLURM": str(home / "slurm")},
    )
    session.install("-e", ".[test,ray]")
    session.run(
        "python",
        "tests/gateways/loopback_only.py",
        "pytest",
        "-n",
        "0",
        "-m",
        "hosts",
        "-k",
        "ray",
        "tests/hosts/test_ray.py",
        "tests/execute/test_contract.py",
        *session.posargs,
        env={"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"},
    )


@nox.session
def browser(session: nox.Session) -> None:
    """The page of a run in Debian's Chromium, which this session installs as root where it is missing."""
    session.install("-e", ".[test,browser]")
    session.run("python", "tests/browser/setup_browser.py")
    session.run("pytest", "-n", "0", "-m", "browser", "tests/browser", *session.posargs)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Seeded fuzz of every input, 2,000 of them, or as the arguments say: `nox -s fuzz -- --inputs 20000`."""
    session.install("-e", ".[test]")
    session.run("python", "benchmarks/fuzz/fuzz.py", *(session.posargs or ("--inputs", "2000")))


@nox.session
def bench(session: nox.Session) -> None:
    """The figures of docs/reference/figures.md, measured again."""
    session.install("-e", ".")
    session.run("python", "benchmarks/figures.py", *session.posargs)
