"""`autotune profiles`: what there is to start from, of every kind."""

import pytest

PROFILES = ["balanced", "cost-optimization", "high-throughput", "low-latency", "production", "quick-test"]
SLOS = ["balanced", "base", "high-throughput", "strict-latency"]
PRESETS = ["a100", "attention-fp8", "bf16-default", "consumer-gpu", "dense-model", "float16-default", "fp8-default"]
PRESETS += ["gemm-fp8", "h100", "mla-model", "moe-model"]
MINE = "name: mine\nlayers:\n  - name: mine-params\n    data:\n      parameters:\n        tp-size: [1]\n"


@pytest.fixture
def own(tmp_path):
    """A profile in ./profiles, an SLO in the user's folder, and a file that cannot be read."""
    for name, text in (
        ("profiles/mine.yaml", MINE),
        ("profiles/broken.yaml", "layers: 3\n"),
        ("config/profiles/slo/chat.yaml", "layers:\n  - {name: chat, data: {slo: {ttft: 1}}}\n"),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)


def test_profiles_slos_and_presets_are_listed_with_their_kind(autotune):
    listed = autotune("profiles", "list", "--json").data
    names = {kind: [e["name"] for e in listed if e["kind"] == kind] for kind in ("profile", "slo", "preset")}
    assert names == {"profile": PROFILES, "slo": SLOS, "preset": PRESETS}
    assert all(entry["description"] and entry["layer_names"] for entry in listed)


@pytest.mark.parametrize(("kind", "names"), [("profile", PROFILES), ("slo", SLOS), ("SLO", SLOS), ("preset", PRESETS)])
def test_one_kind_is_listed_alone(autotune, kind, names):
    assert [entry["name"] for entry in autotune("profiles", "list", "--kind", kind, "--json").data] == names


def test_the_list_says_how_each_kind_is_applied_and_where_each_is_from(autotune, own, tmp_path):
    lines = autotune("profiles", "list").out.splitlines()
    assert [line for line in lines if line.partition(":")[0] in ("profiles", "SLOs", "presets")] == [
        "profiles: --profile NAME, or NAME,NAME for several",
        "SLOs: --slo NAME, on top of the SLO base",
        "presets: --layer NAME, repeatable",
    ]
    assert next(line for line in lines if line.startswith("low-latency ")).endswith(" bundled")
    assert next(line for line in lines if line.startswith("mine ")).endswith(" ./profiles/mine.yaml")
    assert next(line for line in lines if line.startswith("chat ")).endswith(" ./config/profiles/slo/chat.yaml")
    assert "cannot be used: profiles/broken.yaml:1:1" in next(line for line in lines if line.startswith("broken "))
    assert str(tmp_path) not in "".join(lines)


def test_what_is_in_the_home_folder_is_listed_from_there(autotune, own, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert "~/config/profiles/slo/chat.yaml" in autotune("profiles", "list", "--kind", "slo").out


@pytest.mark.parametrize(
    ("name", "kind", "layer"),
    [
        *((name, "profile", f"{name}-params") for name in PROFILES),
        ("strict-latency", "SLO", "strict-latency-huge-model"),
        ("h100", "preset", "h100"),
    ],
)
def test_a_name_of_any_kind_shows_its_layers(autotune, name, kind, layer):
    shown = autotune("profiles", "show", name)
    assert shown.code == 0
    assert shown.out.startswith(f"{kind} {name}: ")
    assert f"\nlayer {layer}\n" in shown.out
    assert autotune("profiles", "show", name, "--json").data["kind"] == kind.lower()


def test_a_name_of_two_kinds_is_the_profile_unless_the_kind_is_given(autotune):
    profile = autotune("profiles", "show", "balanced")
    assert profile.out.startswith("profile balanced: ")
    assert profile.err == "There is also an SLO 'balanced': --kind slo\n"
    slo = autotune("profiles", "show", "balanced", "--kind", "slo")
    assert slo.out.startswith("SLO balanced: ")
    assert slo.err == ""


def test_a_layer_is_shown_with_what_it_depends_on(autotune):
    layers = autotune("profiles", "show", "fp8-default", "--json").data["layers"]
    assert layers[0]["data"] == {"parameters": {"kv-cache-dtype": ["fp8"]}}
    assert layers[0]["cases"][0]["when"] == {"runtime": ["sglang", "vllm", "sim"]}
    assert "when:\n  model: [" in autotune("profiles", "show", "balanced", "--kind", "slo").out


def test_an_unknown_name_is_reported_with_the_nearest_of_every_kind(autotune):
    for typed, near in (
        ("strict-latensy", "strict-latency"),
        ("fp8-defualt", "fp8-default"),
        ("lowlatency", "low-latency"),
    ):
        message = " ".join(autotune("profiles", "show", typed).err.split())
        assert f"Unknown profile, SLO or preset '{typed}'; did you mean '{near}'?" in message


def test_a_file_is_shown_too(autotune, own):
    shown = autotune("profiles", "show", "profiles/mine.yaml")
    assert "layer mine-params\nparameters:\n  tp-size: [1]\n" in shown.out


def test_two_profiles_differ_in_what_they_set(autotune):
    rows = autotune("profiles", "diff", "low-latency", "high-throughput", "--json").data
    values = {row["value"]: (row["low-latency"], row["high-throughput"]) for row in rows}
    assert values["parameters.tp-size"] == ([1, 2], [4, 8])


def test_a_profile_does_not_differ_from_itself(autotune):
    assert "set the same values" in autotune("profiles", "diff", "balanced", "balanced").out


def test_a_good_profile_file_checks(autotune, own):
    checked = autotune("profiles", "check", "profiles/mine.yaml")
    assert (checked.code, "is a valid profile" in checked.out) == (0, True)
