import numpy as np
import pytest

from mt.data.corpus import Corpus, Writer, join_pairs, select_pairs, token_type
from mt.errors import ModelError
from mt.special_tokens import END

SOURCE = [[70, 71, END], [72, END], [300, 65535, 73, END], [74, END]]
TARGET = [[80, END], [81, 82, 83, END], [84, END], [85, 86, END]]


def flat(lists, dtype):
    lengths = np.array([len(ids) for ids in lists], np.int32)
    return np.concatenate([[], *lists]).astype(dtype).tobytes(), lengths.tobytes()


def written(
    folder, cuts=(2,), dtype="uint16", name="train", digest="v", source=SOURCE, target=TARGET
):
    with Writer(folder, name, dtype, digest) as writer:
        for a, b in zip((0, *cuts), (*cuts, len(SOURCE)), strict=True):
            packed = {"source": flat(source[a:b], dtype), "target": flat(target[a:b], dtype)}
            writer.append(
                {side: tokens for side, (tokens, _) in packed.items()},
                {side: lengths for side, (_, lengths) in packed.items()},
            )
    return Corpus.open(folder, name)


@pytest.mark.parametrize("dtype", ["uint16", "uint32"])
def test_what_is_written_is_what_is_read(tmp_path, dtype):
    corpus = written(tmp_path, dtype=dtype)
    assert len(corpus) == len(SOURCE)
    for row in range(len(corpus)):
        assert corpus.source(row).tolist() == SOURCE[row]
        assert corpus.target(row).tolist() == TARGET[row]
        assert corpus.source(row).dtype == dtype
    assert corpus.source_lengths.tolist() == [3, 2, 4, 2]
    assert corpus.target_lengths.tolist() == [2, 4, 2, 3]
    assert corpus.header["tokens"] == {"source": 11, "target": 11}


def test_chunks_do_not_show(tmp_path):
    digests = set()
    for number, cuts in enumerate([(), (1,), (1, 2, 3), (0, 2)]):
        folder = tmp_path / str(number)
        folder.mkdir()
        digests.add(written(folder, cuts).digest)
    assert len(digests) == 1


def test_the_digest_distinguishes_tokens_vocabularies_and_types(tmp_path):
    first = written(tmp_path)
    others = [written(tmp_path, dtype="uint32", name="wide")]
    others += [written(tmp_path, name="other", digest="another vocabulary")]
    others += [written(tmp_path, name="swapped", source=TARGET, target=SOURCE)]
    assert len({first.digest, *(other.digest for other in others)}) == 4
    assert written(tmp_path, name="again").digest == first.digest


def test_an_empty_corpus_opens(tmp_path):
    with Writer(tmp_path, "train", "uint16", "v"):
        pass
    assert len(Corpus.open(tmp_path, "train")) == 0


def test_pairs_stay_on_disk(tmp_path):
    corpus = written(tmp_path)
    ids = corpus.source(0)
    while isinstance(ids.base, np.ndarray):
        ids = ids.base
    assert type(ids.base).__name__ == "mmap"


@pytest.mark.parametrize("name", ["train.source.tokens", "train.target.offsets", "train.json"])
@pytest.mark.parametrize("damage", ["missing", "cut", "longer", "flipped"])
def test_a_damaged_corpus_is_refused(tmp_path, name, damage):
    written(tmp_path)
    path = tmp_path / name
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        flipped = content[:3] + bytes([content[3] ^ 1]) + content[4:]
        path.write_bytes(
            {"cut": content[:-3], "longer": content + b"0", "flipped": flipped}[damage]
        )
    with pytest.raises(ModelError) as error:
        Corpus.open(tmp_path, "train")
    assert error.value.code == "CORPUS-DAMAGED"


def test_a_header_that_was_changed_is_refused(tmp_path):
    written(tmp_path)
    path = tmp_path / "train.json"
    path.write_text(path.read_text().replace('"vocabulary": "v"', '"vocabulary": "w"'))
    with pytest.raises(ModelError, match="its digest is another"):
        Corpus.open(tmp_path, "train")


def test_a_torn_writing_leaves_no_header(tmp_path):
    tokens, lengths = flat(SOURCE, "uint16")
    with pytest.raises(AssertionError, match="do not add up"):
        torn(tmp_path, tokens, lengths)
    assert not (tmp_path / "train.json").exists()


def torn(folder, tokens, lengths):
    with Writer(folder, "train", "uint16", "v") as writer:
        sides = dict.fromkeys(["source", "target"], lengths)
        writer.append({"source": tokens, "target": tokens[:-2]}, sides)


def test_ids_are_as_narrow_as_the_vocabulary_allows():
    assert [token_type(size) for size in (100, 65536, 65537)] == ["uint16", "uint16", "uint32"]


def test_pairs_are_selected_and_joined(tmp_path):
    corpus = written(tmp_path)
    some, none = select_pairs(corpus, np.array([3, 0, 3])), select_pairs(corpus, np.array([], int))
    joined = join_pairs([some, none, corpus])
    rows = [3, 0, 3, *range(len(SOURCE))]
    assert [joined.source(row).tolist() for row in range(len(joined))] == [SOURCE[r] for r in rows]
    assert [joined.target(row).tolist() for row in range(len(joined))] == [TARGET[r] for r in rows]
    assert len(none) == 0
