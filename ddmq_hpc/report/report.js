"use strict";
(() => {
  const charts = JSON.parse(document.getElementById("charts").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const coarse = window.matchMedia("(pointer: coarse)");
  const narrow = window.matchMedia("(max-width: 640px)");

  // Colours have names, "@done", which the style sheet gives their meaning. Only where plotly expects a colour: texts are
  // never looked up.
  const colour = (style, value) =>
    typeof value === "string" && /^@[a-z]+$/.test(value) ? style.getPropertyValue(`--${value.slice(1)}`).trim() : value;
  const coloured = (style) => (key, value) => {
    if (key === "color" || key === "fillcolor") return colour(style, value);
    if (key === "colorscale") return value.map(([at, name]) => [at, colour(style, name)]);
    return value;
  };

  const merged = (base, more) => {
    const result = { ...base };
    for (const [key, value] of Object.entries(more)) {
      const inner = value && typeof value === "object" && !Array.isArray(value);
      result[key] = inner ? merged(result[key] || {}, value) : value;
    }
    return result;
  };

  const layout = (chart, style, width) => {
    const get = (name) => style.getPropertyValue(`--${name}`).trim();
    const axis = {
      gridcolor: get("grid"), linecolor: get("grid"), zerolinecolor: get("grid"),
      automargin: true, showline: false, tickfont: { size: narrow.matches ? 10 : 12 },
    };
    const base = {
      height: chart.height,
      autosize: true,
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: get("font"), size: 12, color: get("text") },
      margin: { l: 8, r: 8, t: 8, b: 8, pad: 4 },
      legend: { orientation: "h", x: 0, y: 1, yanchor: "bottom", xanchor: "left", traceorder: "normal" },
      hoverlabel: { align: "left", bgcolor: get("raised"), bordercolor: get("grid"), font: { color: get("text") } },
      xaxis: { ...axis, nticks: Math.max(3, Math.floor(width / 110)), tickangle: 0 },
      yaxis: { ...axis, title: { standoff: 8 }, fixedrange: true },
      // Under a finger, to drag is to scroll.
      dragmode: coarse.matches ? false : "zoom",
    };
    return merged(base, chart.layout);
  };

  const config = { displaylogo: false, displayModeBar: false, responsive: true, scrollZoom: false };

  const draw = () => {
    const root = document.documentElement;
    const style = getComputedStyle(root);
    for (const [name, chart] of Object.entries(charts)) {
      const place = document.getElementById(`chart-${name}`);
      const { data, layout: own, height } = JSON.parse(JSON.stringify(chart), coloured(style));
      const fixed = root.classList.contains("print") ? { width: place.clientWidth } : {};
      Plotly.react(place, data, { ...layout({ layout: own, height }, style, place.clientWidth), ...fixed }, config);
    }
    document.documentElement.dataset.drawn = dark.matches ? "dark" : "light";
  };

  draw();
  for (const media of [dark, narrow]) media.addEventListener("change", draw);
  // On paper all is dark on white, and as wide as the style sheet says.
  const print = (on) => () => {
    document.documentElement.classList.toggle("print", on);
    draw();
  };
  window.addEventListener("beforeprint", print(true));
  window.addEventListener("afterprint", print(false));
})();
