"""Bags that are not as rosbag2 leaves them: what is whole is read, what is missing is named."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from mcap.writer import CompressionType, IndexType
from mcap.writer import Writer as McapWriter
from rosbags.rosbag1 import Writer as Ros1Writer
from rosbags.typesys import Stores, get_typestore

from anomaly_detector.cli.main import main
from anomaly_detector.errors import SourceError
from anomaly_detector.recordings import FrameSource, count_frames, expand_sources, open_source

IMAGE = "sensor_msgs/msg/Image"
TOPIC = "/camera/image_raw"
FRAMES = 30
CHUNK_FRAMES = 5
STORE = get_typestore(Stores.LATEST)
ROS1 = get_typestore(Stores.ROS1_NOETIC)


def image(number: int, store: Any = STORE) -> Any:
    """Make an image whose grey value is its number; noise beside it keeps chunks large."""
    pixels = np.random.default_rng(number).integers(0, 255, (12, 16, 3), np.uint8)
    pixels[:, :8] = number
    stamp = store.types["builtin_interfaces/msg/Time"](1_000 + number, 0)
    sequence = [] if store is STORE else [number]
    header = store.types["std_msgs/msg/Header"](*sequence, stamp, "camera")
    return store.types[IMAGE](header, 12, 16, "rgb8", 0, 48, pixels.reshape(-1))


def cdr(number: int) -> bytes:
    return bytes(STORE.serialize_cdr(image(number), IMAGE))


def write_mcap(
    path: Path,
    numbers: Sequence[int] = range(FRAMES),
    *,
    compression: CompressionType = CompressionType.ZSTD,
    profile: str = "ros2",
    kind: str = IMAGE,
    encoding: str = "cdr",
    serialize: Callable[[int], bytes] = cdr,
    prepare: Callable[[McapWriter], None] | None = None,
    **options: Any,
) -> Path:
    """Write frames, five a chunk."""
    options.setdefault("chunk_size", CHUNK_FRAMES * len(serialize(0)) - 1)
    writer = McapWriter(str(path), compression=compression, **options)
    writer.start(profile, "test")
    if prepare is not None:
        prepare(writer)
    schema = writer.register_schema(kind, "ros2msg", b"not read by anybody")
    channel = writer.register_channel(TOPIC, encoding, schema)
    for number in numbers:
        time_ns = 1_000_000_000 * (1_000 + number)
        writer.add_message(channel, time_ns, serialize(number), time_ns)
    writer.finish()  # type: ignore[no-untyped-call]
    return path


def write_db3(path: Path, rows: Sequence[int] = range(FRAMES)) -> Path:
    with sqlite3.connect(path) as database:
        database.executescript(
            "CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT NOT NULL, type TEXT NOT NULL, "
            "serialization_format TEXT NOT NULL, offered_qos_profiles TEXT NOT NULL);"
            "CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER NOT NULL, "
            "timestamp INTEGER NOT NULL, data BLOB NOT NULL);"
            "CREATE INDEX timestamp_idx ON messages (timestamp ASC);"
        )
        database.execute("INSERT INTO topics VALUES (1, ?, ?, 'cdr', '')", (TOPIC, IMAGE))
        insert_rows(database, rows)
    database.close()
    return path


def insert_rows(database: sqlite3.Connection, rows: Sequence[int]) -> None:
    database.executemany(
        "INSERT INTO messages(topic_id, timestamp, data) VALUES (1, ?, ?)",
        [(number, cdr(number)) for number in rows],
    )


def write_ros1(path: Path, compression: Any = None, *, digest: str | None = None) -> Path:
    writer = Ros1Writer(path)
    writer.chunk_threshold = CHUNK_FRAMES * 600
    if compression is not None:
        writer.set_compression(compression)
    with writer:
        definition, md5 = ROS1.generate_msgdef(IMAGE, ros_version=1)
        connection = writer.add_connection(TOPIC, IMAGE, msgdef=definition, md5sum=digest or md5)
        for number in range(FRAMES):
            data = ROS1.serialize_ros1(image(number, ROS1), IMAGE)
            writer.write(connection, 1_000_000_000 * (1_000 + number), data)
    return path


def write_metadata(folder: Path, files: Sequence[str], count: int) -> None:
    topic = {"topic_metadata": {"name": TOPIC, "type": IMAGE}, "message_count": count}
    content = {"relative_file_paths": list(files), "topics_with_message_count": [topic]}
    text = json.dumps({"rosbag2_bagfile_information": content})  # which is YAML, too
    (folder / "metadata.yaml").write_text(text)


def values(source: FrameSource) -> list[int]:
    """Return the grey values of the frames, whose stamps and names are to agree with them."""
    found = []
    for frame in source:
        value = int(frame.pixels.array[0, 0, 0])
        assert frame.stamp_ns == 1_000_000_000 * (1_000 + value)
        found.append(value)
    return found


def assert_whole(path: Path) -> None:
    source = open_source(path)
    assert len(source) == FRAMES
    assert values(source) == EVERY_FRAME
    assert not source.unreadable


def overwrite(path: Path, start: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(start)
        file.write(content)


def chunk_positions(path: Path) -> list[int]:
    from mcap.reader import make_reader

    with path.open("rb") as file:
        summary = make_reader(file).get_summary()
    assert summary is not None
    return [index.chunk_start_offset for index in summary.chunk_indexes]


EVERY_FRAME = list(range(FRAMES))


def other_channels(writer: McapWriter) -> None:
    """Add topics of which nobody can read the definitions, with a message each."""
    for topic, encoding, kind, schema_encoding, definition in (
        ("/service/_service_event", "cdr", "a_msgs/srv/B_Event", "ros2msg", b"B_Request[<=1] x"),
        ("/status", "json", "status", "jsonschema", b"{"),
        ("/points", "protobuf", "foxglove.PointCloud", "protobuf", b"\xff\xfe"),
        ("/cut", "cdr", "a_msgs/msg/Cut", "ros2msg", b"float64[36 cov\n===="),
        ("/empty", "cdr", "a_msgs/msg/Empty", "", b""),
    ):
        schema = writer.register_schema(kind, schema_encoding, definition)
        channel = writer.register_channel(topic, encoding, schema)
        writer.add_message(channel, 0, b"\xff\xff\xff", 0)


@pytest.mark.parametrize(
    ("profile", "kind", "encoding", "serialize"),
    [
        ("", IMAGE, "cdr", cdr),
        ("", "sensor_msgs/Image", "cdr", cdr),
        ("ros1", "sensor_msgs/Image", "ros1",
         lambda number: bytes(ROS1.serialize_ros1(image(number, ROS1), IMAGE))),
        ("x", IMAGE, "cdr", lambda number: zstandard.compress(cdr(number))),
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": CompressionType.NONE},
        {"compression": CompressionType.LZ4},
        {"use_chunking": False},
        {"index_types": IndexType.NONE},
        {"use_statistics": False},
        {"repeat_channels": False, "repeat_schemas": False},
        {"use_summary_offsets": False, "index_types": IndexType.CHUNK},
    ],
)
def test_mcap_of_any_writer_is_read(
    tmp_path: Path, profile: str, kind: str, encoding: str, serialize: Any, options: Any
) -> None:
    path = tmp_path / "DRIVE.MCAP"
    write_mcap(path, profile=profile, kind=kind, encoding=encoding, serialize=serialize, **options)
    assert_whole(path)


def test_messages_come_in_the_order_of_their_times(tmp_path: Path) -> None:
    numbers = [*range(10, 20), *range(10), 29, *range(20, 29)]
    assert_whole(write_mcap(tmp_path / "a.mcap", numbers))


@pytest.mark.parametrize("compression", [CompressionType.ZSTD, CompressionType.LZ4])
@pytest.mark.parametrize("has_summary", [True, False])
def test_a_damaged_chunk_costs_its_own_frames(
    tmp_path: Path, compression: CompressionType, has_summary: bool
) -> None:
    path = write_mcap(tmp_path / "a.mcap", compression=compression)
    position = chunk_positions(path)[2]
    overwrite(path, position + 300, bytes(10))
    if not has_summary:
        os.truncate(path, path.read_bytes().rindex(b"\x0f\x04\0\0\0\0\0\0\0"))
    source = open_source(path)
    assert values(source) == EVERY_FRAME[:10] + EVERY_FRAME[15:]
    names = [frame.name for frame in source]
    assert names[9:11] == ["000009", "000015"]
    assert count_frames(source.unreadable) == 5
    assert source.unreadable[0].name == "000010"
    assert f"a.mcap: the chunk at byte {position} is damaged" in source.unreadable[0].reason
    assert len(source.unreadable) == (1 if has_summary else 2)


def test_damaged_bytes_in_a_chunk_without_compression_are_reported(tmp_path: Path) -> None:
    path = write_mcap(tmp_path / "a.mcap", compression=CompressionType.NONE, chunk_size=10**6)
    data = path.read_bytes()
    overwrite(path, data.index(cdr(17)[-20:]), bytes(20))
    source = open_source(path)
    assert values(source) == EVERY_FRAME
    (item,) = source.unreadable
    assert item.frames == 0
    assert "has damaged bytes in it" in item.reason
    # The length of a record: what stands before it is whole.
    overwrite(path, data.index(cdr(20)) - 30, b"\xff" * 8)
    source = open_source(path)
    assert values(source) == EVERY_FRAME[:20]
    assert count_frames(source.unreadable) == 10


@pytest.mark.parametrize("compression", [CompressionType.NONE, CompressionType.LZ4])
def test_mcap_that_is_cut_off_gives_every_whole_message(
    tmp_path: Path, compression: CompressionType
) -> None:
    path = write_mcap(tmp_path / "a.mcap", compression=compression)
    third = chunk_positions(path)[3]
    os.truncate(path, third + 1700)
    source = open_source(path)
    found = values(source)
    assert found == EVERY_FRAME[: len(found)]
    assert len(found) >= (17 if compression == CompressionType.NONE else 15)
    (item,) = source.unreadable
    assert str(item).startswith(f"a.mcap: cut off or damaged in the record at byte {third} of ")


@pytest.mark.parametrize("filling", [b"\0", b"\xff", b"\x41"])
def test_chunks_behind_damaged_records_are_found_without_a_summary(
    tmp_path: Path, filling: bytes
) -> None:
    path = write_mcap(tmp_path / "a.mcap", compression=CompressionType.LZ4)
    positions = chunk_positions(path)
    os.truncate(path, positions[5] + 50)
    overwrite(path, positions[2] - 20, filling * 60)  # the end of an index, the head of a chunk
    source = open_source(path)
    assert values(source) == EVERY_FRAME[:10] + EVERY_FRAME[15:25]
    assert f"follows to byte {positions[3]} is missing" in str(source.unreadable[-1])


def test_zeros_at_the_end_of_an_mcap_are_named(tmp_path: Path) -> None:
    path = write_mcap(tmp_path / "a.mcap")
    position = chunk_positions(path)[4]
    overwrite(path, position, bytes(path.stat().st_size - position))
    source = open_source(path)
    assert values(source) == EVERY_FRAME[:20]
    assert str(source.unreadable[0]).startswith("a.mcap: cut off or damaged in the record at byte")


SPLITS = ("a_0.mcap", "a_1.mcap", "a_2.mcap")


@pytest.fixture
def bag(tmp_path: Path) -> Path:
    """A bag in three files, of ten frames each."""
    folder = tmp_path / "bag"
    folder.mkdir()
    for index, name in enumerate(SPLITS):
        write_mcap(folder / name, range(10 * index, 10 * index + 10))
    write_metadata(folder, SPLITS, FRAMES)
    return folder


@pytest.mark.parametrize("stated", [0, 10, FRAMES])
def test_counts_and_qos_of_the_metadata_decide_nothing(bag: Path, stated: int) -> None:
    write_metadata(bag, SPLITS, stated)
    assert_whole(bag)


def test_a_count_that_is_too_high_is_a_warning_only(bag: Path) -> None:
    write_metadata(bag, SPLITS, 10**12)
    source = open_source(bag)
    assert values(source) == EVERY_FRAME
    assert count_frames(source.unreadable) == 0
    assert str(source.unreadable[0]) == (
        f"metadata.yaml: counts 1000000000000 messages on {TOPIC}, 30 are there"
    )


def test_last_split_cut_off(bag: Path) -> None:
    last = bag / "a_2.mcap"
    os.truncate(last, chunk_positions(last)[1])
    source = open_source(bag)
    assert values(source) == EVERY_FRAME[:25]
    assert count_frames(source.unreadable) == 5
    assert [item.name for item in source.unreadable] == ["a_2.mcap", "000025"]
    assert source.unreadable[1].reason == f"missing, as metadata.yaml counts 30 on {TOPIC}"


@pytest.mark.parametrize("content", [b"", b"\x89MCAP0\r\n", b"\0" * 5000, None])
def test_split_without_content_or_missing(bag: Path, content: bytes | None) -> None:
    if content is None:
        (bag / "a_1.mcap").unlink()
    else:
        (bag / "a_1.mcap").write_bytes(content)
    source = open_source(bag)
    assert values(source) == EVERY_FRAME[:10] + EVERY_FRAME[20:]
    assert any(item.name == "a_1.mcap" for item in source.unreadable)
    assert count_frames(source.unreadable) == 10


def test_renamed_files_are_read_in_natural_order(bag: Path) -> None:
    for old, new in (("a_0", "part 9"), ("a_1", "part 10"), ("a_2", "part 11")):
        (bag / f"{old}.mcap").rename(bag / f"{new}.MCAP")
    assert_whole(bag)


@pytest.mark.parametrize(
    "text", ["", "\0" * 300, "{{{", "rosbag2_bagfile_information:", "- 1", "a: b", "\udcff"]
)
def test_bad_metadata_falls_back_to_the_files(bag: Path, text: str) -> None:
    (bag / "metadata.yaml").write_bytes(text.encode(errors="surrogateescape"))
    source = open_source(bag)
    assert values(source) == EVERY_FRAME
    (item,) = source.unreadable
    assert str(item).startswith("metadata.yaml: empty or damaged: ")


def test_no_metadata(bag: Path) -> None:
    (bag / "metadata.yaml").unlink()
    source = open_source(bag)
    assert values(source) == EVERY_FRAME
    assert str(source.unreadable[0]).startswith("metadata.yaml: missing")
    (bag / "a_0.mcap").rename(bag / "monday.mcap")
    with pytest.raises(SourceError, match=r"monday\.mcap but no metadata\.yaml: give them one"):
        open_source(bag)


def test_a_file_of_another_format_beside_the_bag_is_left_alone(bag: Path) -> None:
    write_db3(bag / "converted.db3")
    assert_whole(bag)


def test_compressed_files_are_read(tmp_path: Path) -> None:
    path = write_mcap(tmp_path / "a.mcap", compression=CompressionType.NONE)
    packed = tmp_path / "a.mcap.zstd"
    packed.write_bytes(zstandard.compress(path.read_bytes()))
    assert_whole(packed)
    # Decompressed by hand: metadata.yaml still names the compressed one; and both kept.
    bag = tmp_path / "bag"
    bag.mkdir()
    write_metadata(bag, ["a.mcap.zstd"], FRAMES)
    shutil.copy(packed, bag)
    assert_whole(bag)
    shutil.copy(path, bag)
    assert_whole(bag)
    (bag / "a.mcap.zstd").unlink()
    assert_whole(bag)
    with zstandard.open(packed, "wb") as file:
        for start in range(0, path.stat().st_size, 1000):
            file.write(path.read_bytes()[start : start + 1000])
            file.flush()
    os.truncate(packed, packed.stat().st_size // 2)
    source = open_source(packed)
    found = values(source)
    assert 5 <= len(found) < FRAMES
    assert found == EVERY_FRAME[: len(found)]
    assert "cut off" in source.unreadable[0].reason


def folder_state(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {f.name: (f.read_bytes(), f.stat().st_mtime_ns) for f in folder.iterdir()}


@pytest.mark.parametrize("read_only", [False, True])
def test_rows_of_the_write_ahead_log_are_read_and_files_stay(
    tmp_path: Path, read_only: bool
) -> None:
    recorded, bag = tmp_path / "recorded", tmp_path / "bag"
    recorded.mkdir()
    write_db3(recorded / "a.db3", range(20))
    database = sqlite3.connect(recorded / "a.db3")
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA wal_autocheckpoint=0")
    with database:
        insert_rows(database, range(20, FRAMES))
    # As after a power cut: before the recorder closes it.
    bag.mkdir()
    for name in ("a.db3", "a.db3-wal"):
        shutil.copy(recorded / name, bag)
    database.close()
    write_metadata(bag, ["a.db3"], 20)
    before = folder_state(bag)
    bag.chmod(0o555 if read_only else 0o755)
    try:
        for path in (bag, bag / "a.db3"):
            assert_whole(path)
    finally:
        bag.chmod(0o755)
    assert folder_state(bag) == before


def test_no_room_for_the_write_ahead_log_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_db3(tmp_path / "a.db3", range(20))
    Path(f"{path}-wal").write_bytes(b"rows")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    source = open_source(path)
    assert values(source) == EVERY_FRAME[:20]
    assert str(source.unreadable[0]).startswith("a.db3: read without a.db3-wal (")


def test_db3_that_is_cut_off_gives_the_rows_that_are_there(tmp_path: Path) -> None:
    path = write_db3(tmp_path / "a.db3")
    os.truncate(path, path.stat().st_size * 4 // 5)
    source = open_source(path)
    found = values(source)
    assert len(found) >= 10
    assert set(found) < set(EVERY_FRAME)
    assert "a.db3: cut off or damaged" in str(source.unreadable[0])


@pytest.mark.parametrize("compression", [None, *Ros1Writer.CompressionFormat])
def test_ros1_bags_of_any_writer(tmp_path: Path, compression: Any) -> None:
    assert_whole(write_ros1(tmp_path / "a.bag", compression, digest="0" * 32))


def test_ros1_bag_that_was_not_closed(tmp_path: Path) -> None:
    path = write_ros1(tmp_path / "a.bag").rename(tmp_path / "b.bag.active")
    os.truncate(path, path.stat().st_size // 2)
    source = open_source(path)
    found = values(source)
    assert 5 <= len(found) < FRAMES
    assert found == EVERY_FRAME[: len(found)]
    assert "cut off" in source.unreadable[0].reason


def test_ros1_bag_with_a_damaged_chunk(tmp_path: Path) -> None:
    path = write_ros1(tmp_path / "a.bag", Ros1Writer.CompressionFormat.BZ2)
    data = path.read_bytes()
    overwrite(path, data.index(b"BZh", data.index(b"BZh") + 3) + 100, bytes(10))
    source = open_source(path)
    found = values(source)
    lost = [number for number in EVERY_FRAME if number not in found]
    assert lost == list(range(lost[0], lost[-1] + 1))
    assert count_frames(source.unreadable) == len(lost) > 0


def strings(writer: McapWriter) -> None:
    schema = writer.register_schema("std_msgs/msg/String", "ros2msg", b"string data")
    channel = writer.register_channel(TOPIC, "cdr", schema)
    writer.add_message(channel, 0, b"\0\1\0\0\2\0\0\0a\0", 0)


@pytest.mark.parametrize("others", [other_channels, strings])
def test_messages_of_other_topics_and_types_matter_not(tmp_path: Path, others: Any) -> None:
    assert_whole(write_mcap(tmp_path / "a.mcap", prepare=others))


PACKETS = "ffmpeg_image_transport_msgs/msg/FFMPEGPacket"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"kind": PACKETS}, f"{TOPIC} .{PACKETS}.*image_transport republish ffmpeg raw"),
        ({"encoding": "json"}, f"images on {TOPIC} in the encoding 'json'"),
        ({"kind": "std_msgs/msg/String"}, r"a\.mcap has no sensor_msgs/Image or CompressedImage"),
    ],
)
def test_what_is_there_instead_of_images_is_named(
    tmp_path: Path, options: dict[str, str], reason: str
) -> None:
    path = write_mcap(tmp_path / "a.mcap", **options)  # type: ignore[arg-type]
    with pytest.raises(SourceError, match=reason):
        open_source(path)


def test_pattern_leaves_no_bag_out(tmp_path: Path) -> None:
    names = [
        "a.mcap",
        "b.mcap.zstd",
        "c.bag.active",
        "d.db3",
        "e.mcap.gz",
        "notes.txt",
        "f.bag.md5",
    ]
    for name in names:
        (tmp_path / name).write_bytes(b"")
    found = expand_sources([str(tmp_path / "*")])
    assert [Path(text).name for text in found] == names[:5]
    with pytest.raises(SourceError, match=r"e\.mcap\.gz is packed: unpack it"):
        open_source(tmp_path / "e.mcap.gz")


def test_score_says_what_is_missing(
    tmp_path: Path, bag: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (bag / "a_2.mcap").unlink()
    output = tmp_path / "scores.csv"
    command = ["score", "--model", str(model), "--input", str(bag)]
    assert main([*command, "--output", str(output)]) == 0
    captured = capsys.readouterr()
    assert f"warning: {bag}: a_2.mcap: missing, but named in metadata.yaml" in captured.err
    assert f"warning: {bag}: 000020 and 9 more skipped: missing" in captured.err
    assert "20 frames scored" in captured.out
    assert "10 unreadable" in captured.out
    assert len(output.read_text().splitlines()) == 21
    assert main([*command, "--output-dir", str(tmp_path / "many")]) == 0
    assert f"warning: {bag}: a_2.mcap: missing" in capsys.readouterr().err
    assert "a_2.mcap: missing" in (tmp_path / "many" / "report.html").read_text()


def readable(path: Path) -> list[int]:
    """Return what can be read; nothing when that is an error of one line."""
    found: list[int] = []
    message = ""
    try:
        found = [int(frame.pixels.array[0, 0, 0]) for frame in open_source(path)]
    except SourceError as error:
        message = str(error)
    assert "\n" not in message
    assert "NoneType" not in message
    return found


WRITERS: dict[str, Callable[[Path], Path]] = {
    "zstd.mcap": write_mcap,
    "plain.mcap": lambda path: write_mcap(path, compression=CompressionType.NONE),
    "loose.mcap": lambda path: write_mcap(path, use_chunking=False),
    "a.db3": write_db3,
    "plain.bag": write_ros1,
    "packed.bag": lambda path: write_ros1(path, Ros1Writer.CompressionFormat.LZ4),
}


@pytest.mark.parametrize("name", WRITERS)
def test_any_cut_gives_the_frames_before_it_or_one_line(tmp_path: Path, name: str) -> None:
    data = WRITERS[name](tmp_path / name).read_bytes()
    generator = np.random.default_rng(0)
    path = tmp_path / f"cut_{name}"
    most = 0
    for end in sorted({*range(200), *generator.integers(0, len(data), 150).tolist()}):
        path.write_bytes(data[:end])
        found = readable(path)
        if not name.endswith("db3"):
            assert found == EVERY_FRAME[: len(found)]
            assert len(found) >= most
            most = len(found)
        assert set(found) <= set(EVERY_FRAME)


@pytest.mark.parametrize("name", WRITERS)
def test_any_damage_gives_frames_or_one_line(tmp_path: Path, name: str) -> None:
    data = WRITERS[name](tmp_path / name).read_bytes()
    generator = np.random.default_rng(1)
    path = tmp_path / f"bad_{name}"
    for _ in range(150):
        damaged = bytearray(data)
        for _ in range(int(generator.integers(1, 4))):
            start = int(generator.integers(0, len(data)))
            length = int(generator.choice([1, 4, 100, 4096]))
            filling = generator.integers(0, 256, length, np.uint8).tobytes()
            damaged[start : start + length] = filling if generator.random() < 0.7 else bytes(length)
        path.write_bytes(damaged[: len(data)])
        assert len(readable(path)) <= FRAMES
