from pathlib import Path

import pytest
from pydantic import ValidationError

from app.settings import Settings


def test_defaults_without_any_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    settings = Settings.from_environ({})
    assert (settings.http_host, settings.http_port) == ("127.0.0.1", 8000)
    assert settings.home == tmp_path.resolve() / ".modelunit"
    assert settings.database == f"sqlite:///{settings.home}/registry.db"
    assert settings.objects == f"file://{settings.home}/objects"
    assert settings.run_dir.parent == settings.log_dir.parent == settings.home


def test_variables_are_read(tmp_path: Path) -> None:
    settings = Settings.from_environ(
        {
            "MODELUNIT_HOME": str(tmp_path),
            "MODELUNIT_HTTP_PORT": "9000",
            "MODELUNIT_DATABASE_URL": "postgresql://db/x",
            "MODELUNIT_OBJECT_STORE": "s3://bucket/p",
            "HTTP_PORT": "1",
            "PATH": "/bin",
        }
    )
    assert (settings.home, settings.http_port) == (tmp_path.resolve(), 9000)
    assert (settings.database, settings.objects) == ("postgresql://db/x", "s3://bucket/p")


def test_an_empty_variable_counts_as_unset() -> None:
    assert Settings.from_environ({"MODELUNIT_HTTP_PORT": "", "MODELUNIT_ADMIN_KEY": ""}) == Settings.from_environ({})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HTTP_PORT", "0"),
        ("HTTP_PORT", "65536"),
        ("HTTP_PORT", "web"),
        ("S3_ADDRESSING_STYLE", "x"),
        ("WRITE_ROOTS", "/srv"),
    ],
)
def test_a_wrong_variable_is_named(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"^MODELUNIT_{name}: "):
        Settings.from_environ({f"MODELUNIT_{name}": value})


def test_the_admin_key_does_not_show() -> None:
    assert "mu-secret" not in repr(Settings.from_environ({"MODELUNIT_ADMIN_KEY": "mu-secret"}))


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings.from_environ({}).http_port = 1


def test_started_processes_hear_of_these_settings_alone() -> None:
    ours = Settings(home=Path("/h"), http_port=1234)
    given = {"PATH": "/bin", "MODELUNIT_DATABASE_URL": "postgresql://theirs", "MODELUNIT_ADMIN_KEY": "mu-theirs"}
    told = ours.to_environ(given)
    assert told["PATH"] == "/bin"
    assert "theirs" not in "".join(told.values())
    assert Settings.from_environ(told) == ours.model_copy(update={"home": Path("/h")})


def test_lists_are_written_with_separators(tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to(tmp_path)
    settings = Settings.from_environ(
        {
            "MODELUNIT_FILE_ROOTS": f"{tmp_path}/alias/models:/srv:",
            "MODELUNIT_SOURCE_ENDPOINTS": "https://one http://two:9000",
        }
    )
    assert settings.file_roots == (tmp_path.resolve() / "models", Path("/srv").resolve())
    assert settings.source_endpoints == ("https://one", "http://two:9000")
    assert Settings.from_environ(settings.to_environ({})) == settings


def test_a_store_behind_a_link_is_known_by_where_it_lies(tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to(tmp_path)
    settings = Settings.from_environ({"MODELUNIT_OBJECT_STORE": f"file://{tmp_path}/alias/objects"})
    assert settings.objects == f"file://{tmp_path.resolve()}/objects"
    assert Settings.from_environ({"MODELUNIT_OBJECT_STORE": "s3://bucket/alias"}).objects == "s3://bucket/alias"


def test_a_list_with_a_relative_folder_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^MODELUNIT_FILE_ROOTS: "):
        Settings.from_environ({"MODELUNIT_FILE_ROOTS": "/srv:models"})
