"""`mt cache`."""

from mt.cli import main


class TestCache:
    def test_it_lists_and_clears_what_is_encoded(self, folder, capsys):
        entry = folder / "cache" / "corpora" / "0123abcd"
        entry.mkdir(parents=True)
        (entry / "tokens").write_bytes(bytes(2_000_000))
        assert main.run(["cache"]) == 0
        assert capsys.readouterr().out == f"       2.0 MB  {entry}\n"
        assert main.run(["cache", "--clear"]) == 0
        assert not entry.exists()
        assert main.run(["cache"]) == 0
        assert capsys.readouterr().out == ""

    def test_a_cache_that_is_not_there_is_empty(self, folder, capsys):
        assert main.run(["cache"]) == 0
        assert main.run(["cache", "--clear"]) == 0
        assert capsys.readouterr().out == ""

    def test_downloads_are_listed_and_stay_until_they_are_named(self, folder, capsys):
        entry = folder / "cache" / "downloads" / "0123abcd"
        entry.parent.mkdir(parents=True)
        entry.write_bytes(bytes(1_000_000))
        entry.with_suffix(".lock").touch()
        assert main.run(["cache", "--clear"]) == 0
        assert main.run(["cache"]) == 0
        assert capsys.readouterr().out == f"       1.0 MB  {entry}\n"
        assert main.run(["cache", "--clear-downloads"]) == 0
        assert not entry.exists()
