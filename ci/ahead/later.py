"""The C of mypyc, with less in it that is there before anybody wants it.

Data with an address in it is written by the dynamic linker, and so is memory of each process. mypyc
has such data for each function (the names of its arguments) and for each class (its methods and
attributes, what CPython's is copied from), whether anybody wants it or not. Here code makes those
when they are wanted.

Each generator, each function in another and what such share is a class of its own, two of three.
Those are made with their first object, not with their module. Nothing is pickled.
"""

from __future__ import annotations

import re

ARGUMENTS = re.compile(
    r"^( *)static const char \* const kwlist\[\] = \{((?:\"\w+\", )*)0\};\n"
    r" *static CPyArg_Parser parser = \{(\".*\"), kwlist, 0\};\n",
    re.M,
)
TEMPLATE = re.compile(
    r"static PyTypeObject (?P<name>CPyType_\w+)_template_ = \{\n"
    r" +PyVarObject_HEAD_INIT\(NULL, 0\)\n"
    r"(?P<fields>(?:    \.\w+ = .*,\n)+)"
    r"\};\n"
    r"static PyTypeObject \*(?P=name)_template = &(?P=name)_template_;\n"
)
MEMBERS = re.compile(
    r"static (?P<kind>PyMethodDef|PyGetSetDef) (?P<name>\w+_(?:methods|getseters))\[\] = \{\n"
    r"(?P<each>(?:    \{\"(?:.|\n)*?)?)"
    r"    \{NULL\}  /\* Sentinel \*/\n"
    r"\};\n"
)
MADE_WITH_MODULE = re.compile(
    r"    (?P<name>CPyType_\w+) = \(PyTypeObject \*\)CPyType_FromTemplate\("
    r"\(PyObject \*\)(?P=name)_template, NULL, modname\);\n"
    r"    if \(unlikely\(!(?P=name)\)\)\n"
    r"        goto fail;\n"
    r"    (?P<rest>CPyDef_\w+_trait_vtable_setup\(\);)\n"
)
OBJECT = re.compile(
    r"^( +)(PyObject \*self = CPyDef_\w+_setup\(\(PyObject \*\)(CPyType_\w+)\);\n)", re.M
)
TAKEN = re.compile(r"= \(PyObject \*\)(CPyType_\w+_template);")
MODULE = re.compile(r"PyObject_GetAttrString\(\(PyObject \*\)(CPyModule_\w+), \"__name__\"\)")
PICKLED = re.compile(r"^ +\{\"__[gs]etstate__\", \(PyCFunction\)CPyPickle_.*\},\n", re.M)
LEFT = re.compile(r"_template_ = |CPyArg_Parser \w+ = |(?<!module)_(methods|getseters)\[\] = ")


def lean(text: str) -> str:
    """The C of a module. Raises: ValueError, where mypyc has written it in another way."""
    text = MEMBERS.sub(_members, PICKLED.sub("", ARGUMENTS.sub(_arguments, text)))
    late = {match["name"]: match["rest"] for match in MADE_WITH_MODULE.finditer(text)}
    text = MADE_WITH_MODULE.sub("", text)
    module = MODULE.search(text)
    text = TEMPLATE.sub(lambda match: _class(match, module and module[1], late), text)
    text = TAKEN.sub(r"= (PyObject *)\1();", text)
    begun = {match[3] for match in OBJECT.finditer(text)}
    if unknown := late.keys() - begun:
        raise ValueError(f"nowhere does mypyc's C make the first object of {unknown}")
    text = OBJECT.sub(lambda match: _first(match, late), text)
    if left := LEFT.search(text):
        raise ValueError(f"as mypyc wrote it: {text[left.start() - 80 : left.end() + 80]}")
    return text


def _first(match: re.Match[str], late: dict[str, str]) -> str:
    """The class, before its first object."""
    space, line, name = match.groups()
    if name not in late:
        return match[0]
    return (
        f"{space}if (unlikely({name} == NULL) && !{name}_made())\n"
        f"{space}    return NULL;\n"
        f"{space}{line}"
    )


def _arguments(match: re.Match[str]) -> str:
    """Their names, when the function is called for the first time."""
    space, words, how = match.groups()
    joined = "".join(f'{word}"\\0"' for word in words.split(", ")[:-1]) or '""'
    return (
        f"{space}static const char *kwlist[{words.count(',') + 1}];\n"
        f"{space}static CPyArg_Parser parser;\n"
        f"{space}if (unlikely(parser.format == NULL))\n"
        f"{space}    ahead_arguments(&parser, kwlist, {joined}, {how});\n"
    )


def _members(match: re.Match[str]) -> str:
    """Methods or attributes of a class, which are filled in with it."""
    kind, name, each = match.groups()
    made = [one.rstrip().rstrip(",") for one in re.split(r"^    (?=\{)", each, flags=re.M)[1:]]
    lines = "".join(f"    {name}[{i}] = ({kind}){one};\n" for i, one in enumerate(made))
    return (
        f"static {kind} {name}[{len(made) + 1}];\n"
        f"static {kind} *{name}_made(void)\n{{\n{lines}    return {name};\n}}\n"
    )


def _class(match: re.Match[str], module: str | None, late: dict[str, str]) -> str:
    """What a class is copied from, and the class itself if it is a late one."""
    name = match["name"]
    fields = re.sub(r"^    \.(.*),$", r"    made->\1;", match["fields"], flags=re.M)
    fields = re.sub(r"(tp_(?:methods|getset) = \w+);", r"\1_made();", fields)
    text = (
        f"static PyTypeObject *{name}_template(void)\n"
        f"{{\n    PyTypeObject *made = ahead_blank();\n{fields}    return made;\n}}\n"
    )
    if name in late:
        text += (
            f"static bool {name}_made(void)\n"
            f"{{\n    {name} = ahead_class({name}_template(), {module});\n"
            f"    if ({name} == NULL)\n        return false;\n"
            f"    {late[name]}\n    return true;\n}}\n"
        )
    return text
