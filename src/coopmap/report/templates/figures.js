// Figures in the reader's color scheme; on a narrow page their panels stand one below the other.
const styles = {{ figure_styles | tojson }};
const prefersDark = window.matchMedia("(prefers-color-scheme: dark)"), isNarrow = window.matchMedia("(max-width: 760px)");
const PANEL = 220, GAP = 80;
const drawn = new Map();

function paint() {
  const template = styles[prefersDark.matches ? "dark" : "light"];
  return each(figure => Plotly.relayout(figure, {template}));
}

function each(change) {
  return Promise.all([...document.querySelectorAll(".plotly-graph-div")].map(change));
}

// Pairs of axes in reading order; a figure of one panel has no domains.
function panelsOf(layout) {
  return Object.keys(layout).filter(key => /^yaxis\d*$/.test(key) && layout[key].domain && layout[key].anchor)
    .map(y => ({y, x: layout[y].anchor.replace("x", "xaxis")}))
    .sort((a, b) => layout[b.y].domain[1] - layout[a.y].domain[1] || layout[a.x].domain[0] - layout[b.x].domain[0]);
}

// Where everything goes. Rows and columns are named once in a grid: a panel that stands alone repeats the name.
function stacked(layout, panels) {
  const plot = panels.length * (PANEL + GAP) - GAP, update = {"legend.y": 1 + (layout.annotations ? 30 : 12) / plot};
  const title = axis => layout[axis].title?.text;
  panels.forEach(({x, y}, place) => {
    const top = 1 - place * (PANEL + GAP) / plot, bottom = Math.max(0, top - PANEL / plot);
    Object.assign(update, {[`${x}.domain`]: [0, 1], [`${y}.domain`]: [bottom, top]});
    const row = panels.filter(other => layout[other.y].domain[1] === layout[y].domain[1]);
    const column = panels.filter(other => layout[other.x].domain[0] === layout[x].domain[0]);
    update[`${y}.title.text`] = title(y) ?? row.map(other => title(other.y)).find(Boolean) ?? null;
    update[`${x}.title.text`] = title(x) ?? column.map(other => title(other.x)).find(Boolean) ?? null;
    (layout.annotations ?? []).forEach((note, number) => {
      const [left, right] = layout[x].domain;
      if (note.xref === "paper" && note.x > left && note.x < right && note.y === layout[y].domain[1])
        Object.assign(update, {[`annotations[${number}].x`]: 0.5, [`annotations[${number}].y`]: top});
    });
  });
  return {update, plot};
}

async function arrange(figure) {
  if (!drawn.has(figure)) drawn.set(figure, structuredClone(figure.layout));
  const layout = drawn.get(figure), panels = panelsOf(layout);
  if (panels.length < 2) return;
  const {update, plot} = stacked(layout, panels);
  const valueAt = path => path.replace("]", "").split(/[.[]/).reduce((inner, key) => inner?.[key], layout) ?? null;
  if (!isNarrow.matches) {
    const before = Object.fromEntries(Object.keys(update).map(key => [key, valueAt(key)]));
    await resize(figure, layout.height, before);
    await Plotly.Plots.resize(figure); // whatever width the page had while that went on
    return;
  }
  await resize(figure, plot + 200, update);
  const {t, b} = figure._fullLayout._size; // the legend and labels take what they need
  await resize(figure, plot + t + b);
}

function resize(figure, height, update) {
  for (const box of [figure, figure.parentElement]) box.style.height = `${height}px`;
  return Plotly.relayout(figure, {...update, height, width: null, autosize: true}); // the width stays that of the page
}

prefersDark.addEventListener("change", paint);
isNarrow.addEventListener("change", () => each(arrange));
(async () => {
  if (prefersDark.matches) await paint();
  if (isNarrow.matches) await each(arrange);
  document.documentElement.dataset.arranged = "yes";
})();
