"""Style sheet of the report."""

STYLE = """
:root { --ink: #1f2328; --soft: #656d76; --line: #d8dee4; --ground: #f6f8fa; --blue: #1f6feb; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1240px; margin: 0 auto; padding: 24px 16px 64px; }
header, section { background: #fff; border: 1px solid var(--line); border-radius: 10px; padding: 22px 26px;
  margin-bottom: 18px; }
h1 { font-size: 26px; line-height: 1.25; margin: 0 0 8px; overflow-wrap: anywhere; }
h2 { font-size: 19px; margin: 0 0 2px; }
h3 { font-size: 15px; margin: 18px 0 6px; }
.kind { margin: 0; color: var(--soft); font-size: 13px; letter-spacing: .04em; text-transform: uppercase; }
.lead, .note { color: var(--soft); margin: 0 0 12px; max-width: 78ch; }
.note { margin: 10px 0 0; font-size: 13px; }
code { font: 12.5px/1.4 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; overflow-wrap: anywhere; }
.badge { padding: 2px 10px; border-radius: 99px; font-weight: 600; }
.badge.plain { background: #dafbe1; color: #116329; }
.badge.priors { background: #fff1d6; color: #8a4600; }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(250px, 1fr)); gap: 10px 28px; margin: 14px 0 0; }
dt { color: var(--soft); font-size: 12.5px; }
dd { margin: 0; overflow-wrap: anywhere; }
.warning { margin-top: 14px; padding: 10px 14px; background: #fff8c5; border: 1px solid #eed888; border-radius: 8px; }
.warning ul { margin: 4px 0 0; padding-left: 20px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 7px 7px; text-align: right; vertical-align: top; border-bottom: 1px solid var(--line); }
thead th { color: var(--soft); font-weight: 500; font-size: 13px; vertical-align: bottom; }
thead .group { text-align: center; border-left: 1px solid var(--line); color: var(--ink); }
tbody th { text-align: left; font-weight: 500; }
td small, th small { display: block; color: var(--soft); font-size: 11.5px; font-weight: 400; white-space: nowrap; }
.methods { width: 100%; }
.methods tbody th { white-space: nowrap; }
.methods th small { white-space: normal; max-width: 16ch; }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(460px, 1fr)); gap: 0 34px;
  align-items: start; }
.methods td:nth-child(2), .methods td:nth-child(5), .methods td:nth-child(8) { border-left: 1px solid var(--line); }
.methods tr.model { background: #ddf4ff; }
.methods tr.model th { box-shadow: inset 4px 0 var(--blue); font-weight: 700; }
.methods tr.refined th { box-shadow: inset 4px 0 #8250df; }
.methods tr.prior th { box-shadow: inset 4px 0 #bf3989; }
.methods tr.absent td { text-align: left; color: var(--soft); }
.methods tr.published { color: #57606a; font-style: italic; }
.figures th { padding-left: 0; }
.figures th, .figures td { padding-top: 4px; padding-bottom: 4px; }
article { display: grid; grid-template-columns: 300px 1fr; gap: 22px; padding: 16px 0;
  border-top: 1px solid var(--line); }
article p { margin: 0 0 8px; }
.map { width: 100%; background: var(--ground); border: 1px solid var(--line); border-radius: 8px; font-size: 11px; }
.views { min-width: 0; }
.views figure { display: inline-block; width: calc(50% - 8px); margin: 0 8px 8px 0; }
.views img { width: 100%; display: block; border-radius: 6px; background: var(--ground); }
figcaption { color: var(--soft); font-size: 12px; }
@media (max-width: 720px) { article { grid-template-columns: 1fr; } .views figure { width: 100%; } }
@media print { body { background: #fff; } section, header { break-inside: avoid-page; } }
"""
