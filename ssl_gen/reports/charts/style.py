"""The looks of the report: one style sheet, light and dark, and the colours of the confusion matrix.

Curves are blue and orange (Okabe and Ito 2008, "Color universal design": safe for the colour-blind) and differ in
their dashes as well; the confusion matrix has one hue of rising depth, which needs no colour vision at all.
"""

from __future__ import annotations

Colour = tuple[int, int, int]  # sRGB, 0..255

LEVELS = 10  # depths of colour in the confusion matrix besides "none"
LIGHT = ((247, 251, 255), (8, 48, 107))  # from no image of a row to all of them, on a light page
DARK = ((27, 32, 40), (158, 205, 255))  # and on a dark one


def luminance(colour: Colour) -> float:
    """Relative luminance in 0..1 of an sRGB colour (W3C, WCAG 2.1)."""
    linear = [c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def shade(level: int, ends: tuple[Colour, Colour]) -> tuple[Colour, Colour]:
    """Background at a level 0..10 between two ends, and black or white, whichever reads better on it."""
    share = level / LEVELS
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(*ends, strict=True))
    # Contrast is (lighter + 0.05) / (darker + 0.05): black and white are even where (l + 0.05)^2 = 1.05 * 0.05.
    light = luminance((red, green, blue)) + 0.05 > (1.05 * 0.05) ** 0.5
    return (red, green, blue), ((0, 0, 0) if light else (255, 255, 255))


def _shades(ends: tuple[Colour, Colour]) -> str:
    rules = []
    for level in range(LEVELS + 1):
        background, text = shade(level, ends)
        rules.append(f".c{level}{{background:rgb{background};color:rgb{text}}}".replace(" ", ""))
    return "".join(rules)


SHEET = (
    """
:root{color-scheme:light dark;--page:#fff;--ink:#1d2329;--soft:#59636e;--rule:#d5dae0;--tint:#f4f6f8;
--first:#0072b2;--second:#d55e00;--warn:#fff4e0;--warn-rule:#d08700;
--shade:rgba(0,0,0,.22)}
*{box-sizing:border-box}
body{margin:0 auto;padding:28px 20px 60px;max-width:1080px;background:var(--page);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;overflow-wrap:anywhere}
h1{font-size:1.6rem;line-height:1.25;margin:.8rem 0 .4rem}
h2{font-size:1.2rem;margin:2.4rem 0 .6rem;padding-top:.6rem;border-top:1px solid var(--rule)}
h3{font-size:1rem;margin:1.4rem 0 .3rem}
p{margin:.4rem 0;max-width:50rem}
figcaption{max-width:60rem}
.lead{font-size:1.1rem}
.soft,figcaption,summary span{color:var(--soft);font-size:.9rem}
.warning{background:var(--warn);border-left:4px solid var(--warn-rule);padding:.5rem .9rem;margin:.6rem 0}
.scroll{overflow-x:auto;max-width:100%;overflow-wrap:normal;
background:linear-gradient(270deg,var(--page) 30%,transparent) 100% 0/36px 100% no-repeat local,
linear-gradient(270deg,var(--shade),transparent) 100% 0/14px 100% no-repeat scroll}
table{border-collapse:collapse;font-size:.92rem;font-variant-numeric:tabular-nums}
th,td{padding:.3rem .75rem;text-align:left;white-space:nowrap;border-bottom:1px solid var(--rule)}
th{font-weight:600;vertical-align:bottom}
.long{white-space:normal}
.scroll th:first-child,.scroll td:first-child{position:sticky;left:0;background:var(--page);
background-clip:padding-box;max-width:60vw;overflow-wrap:break-word}
thead th{border-bottom:2px solid var(--rule)}
th.n,td.n{text-align:right}
.wrap th.n,.wrap td.n{text-align:left}
.oracle td,.oracle th{color:var(--soft);font-style:italic;font-weight:400}
.oracle .mark{white-space:normal;padding-top:.9rem}
.wrap td{white-space:normal;min-width:9rem;vertical-align:top;overflow-wrap:anywhere}
code,pre{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;font-size:.9em}
pre{background:var(--tint);border:1px solid var(--rule);padding:.7rem .9rem;white-space:pre-wrap;margin:.5rem 0}
figure{margin:.6rem 0}
.key{display:inline-flex;align-items:center;gap:.45rem;margin-right:1.2rem;font-size:.9rem;white-space:nowrap}
.key svg{width:34px;height:10px}
.plot{padding:8px 18px 26px 72px}
.plot svg{display:block;overflow:visible}
.plot text{font-size:12px;fill:var(--soft)}
.grid{stroke:var(--rule);stroke-width:1}
.boundary{stroke:var(--soft);stroke-width:1;stroke-dasharray:3 4}
.line{fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:round;vector-effect:non-scaling-stroke}
.band{stroke:none;fill-opacity:.2}
.line.first{stroke:var(--first)}.band.first{fill:var(--first)}
.line.second{stroke:var(--second);stroke-dasharray:7 4}.band.second{fill:var(--second)}
.multiples{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(260px,100%),1fr));gap:.6rem 1.2rem}
.multiples figure{min-width:0}
.multiples figcaption{display:flex;justify-content:space-between;gap:.6rem}
.multiples figcaption b{color:var(--ink);font-weight:600}
.figures{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(420px,100%),1fr));gap:1rem 1.2rem}
.figures figure{min-width:0}
.figures svg{display:block;width:100%;height:auto}
.grids td,.grids th{vertical-align:top;padding:.3rem}
.grids figure{width:min-content}
.strip{display:flex;gap:.9rem;width:max-content}
.strip figure{margin:.2rem 0}
.samples{display:block;image-rendering:pixelated}
.grids .samples,.strip .samples{image-rendering:auto}
.confusion{border-collapse:separate;border-spacing:2px}
.confusion th,.confusion td{border:0;padding:.3rem .5rem}
.confusion td{text-align:right;min-width:2.9rem}
.confusion thead th{text-align:right;vertical-align:bottom;font-weight:400}
.confusion tbody th{font-weight:400;text-align:right;vertical-align:middle}
.confusion tbody th,.confusion .up{max-width:9rem;max-height:10rem;overflow:hidden;text-overflow:ellipsis}
.confusion thead .up{writing-mode:vertical-rl;transform:rotate(180deg);text-align:left;padding:.4rem .2rem}
.confusion td a{color:inherit;display:block;margin:-.3rem -.5rem;padding:.3rem .5rem}
.cell{display:none;border:1px solid var(--rule);padding:.2rem .9rem .8rem;margin:.6rem 0;scroll-margin-top:40vh}
.cell:target{display:block}
.cell h3{margin-top:.4rem}
.thumbnails{display:flex;flex-wrap:wrap;gap:.6rem}
.thumbnails figure{margin:0}
.thumbnails figcaption{font-size:.75rem;line-height:1.25}
.thumbnail{display:block;background-repeat:no-repeat;image-rendering:pixelated}
a{color:var(--first)}
summary{cursor:pointer;margin:.6rem 0;font-weight:600}
@media (max-width:600px){
body{padding:20px 12px 40px}
th,td{padding:.3rem .45rem}
.wrap td{min-width:7rem}
.confusion{font-size:.8rem;border-spacing:1px}
.confusion th,.confusion td{padding:.25rem .2rem}
.confusion td{min-width:1.75rem}
}
"""
    + _shades(LIGHT)
    + """
@media (prefers-color-scheme:dark){
:root{--page:#14181d;--ink:#e4e8ec;--soft:#a3adb8;--rule:#343c46;--tint:#1b2028;--first:#56b4e9;--second:#e69f00;
--warn:#33290f;--warn-rule:#d08700;--shade:rgba(255,255,255,.22)}
"""
    + _shades(DARK)
    + """
}
@media print{.scroll{overflow:visible}}
"""
)
