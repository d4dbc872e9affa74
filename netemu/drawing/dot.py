"""A lab as Graphviz text: `netemu graph --format dot | dot -Tpdf`. Pure."""

from netemu.drawing.scene import METADATA, Scene
from netemu.interfaces import BRIDGE

# Fill and line, as in the SVG.
_COLOURS = {
    "well": ("#f7f9fb", "#b4c1cd"),
    "warned": ("#fff6e0", "#e0a100"),
    "struck": ("#fde4df", "#c8442b"),
    "away": ("#e9edf1", "#8898a8"),
}


def dot(scene: Scene) -> str:
    """Return the scene in Graphviz's language."""
    lines = [
        f"graph {_quoted(scene.name)} {{",
        f"  label={_quoted(f'{scene.name}: {scene.caption}')}; labelloc=t; rankdir=LR;",
        '  fontname="Helvetica"; node [fontname="Helvetica", shape=box, style="rounded,filled"];',
        '  edge [fontname="Helvetica", fontsize=9, color="#5b6b7b"];',
    ]
    for place, node in enumerate(scene.nodes):
        bridge = _quoted(f"bridge of {node.name}")
        colour = "#c8442b" if node.failed else "#9fb0c0"
        label = f"{node.name}, failed" if node.failed else node.name
        lines += [
            f"  subgraph cluster_{place} {{",
            f'    label={_quoted(label)}; style=rounded; color="{colour}";',
            f'    {bridge} [label="{BRIDGE}\\n{METADATA}", fillcolor="#e3eef7", color="#6a9cc4"];',
        ]
        for guest in node.guests:
            fill, line = _COLOURS[guest.mood]
            text = "\n".join(filter(None, (guest.name, guest.address, guest.says)))
            lines.append(
                f"    {_quoted(guest.name)} "
                f'[label={_quoted(text)}, fillcolor="{fill}", color="{line}"];'
            )
            lines.append(f"    {bridge} -- {_quoted(guest.name)} [label={_quoted(guest.port)}];")
        lines.append("  }")
    lines.append("}")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """Quote a string for Graphviz, where a line break is the two characters backslash and n."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
