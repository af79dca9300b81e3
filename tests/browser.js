// What is wrong with the page as it stands: a list of sentences. Everything that can be opened is opened first.
() => {
  const faults = [];
  for (const details of document.querySelectorAll("details")) details.open = true;
  const isDrawing = document.documentElement.tagName === "svg";
  const drawings = isDrawing ? [document.documentElement] : [...document.querySelectorAll("svg")];
  const shown = (element) => element.getClientRects().length > 0;
  const quote = (element) => `"${element.textContent.trim().replace(/\s+/g, " ").slice(0, 40)}"`;

  // --- colours: [r, g, b, a] of CSS's rgb() ---
  const parse = (text) => {
    const numbers = (text.match(/rgba?\(([^)]*)\)/) ?? [, "0, 0, 0, 0"])[1].split(/[,\s/]+/).map(Number);
    return numbers.length > 3 ? numbers : [...numbers, 1];
  };
  const over = (top, below) => below.map((value, i) => i < 3 ? top[i] * top[3] + value * (1 - top[3]) : 1);
  const luminance = (colour) => {
    const [r, g, b] = colour.map((value) => (value /= 255) <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (a, b) => {
    const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y);
    return (high + 0.05) / (low + 0.05);
  };
  // every colour that may lie behind an element of HTML: one, or a gradient's stops
  const grounds = (element) => {
    if (element === null) return [[255, 255, 255, 1]];
    const style = getComputedStyle(element), own = parse(style.backgroundColor);
    const stops = (style.backgroundImage.match(/rgba?\([^)]*\)/g) ?? []).map(parse);
    if (own[3] === 1 && !stops.length) return [own];
    const below = grounds(element.parentElement);
    const layers = stops.length ? stops : [own];
    return below.flatMap((ground) => layers.map((layer) => over(layer, ground)));
  };
  const readable = (element, colour, backs, size, isBold) => {
    const needed = size >= 24 || (isBold && size >= 18.66) ? 3 : 4.5;
    const found = Math.min(...backs.map((back) => contrast(over(colour, back), back)));
    if (found < needed) faults.push(`${quote(element)}: contrast ${found.toFixed(2)}, below ${needed}`);
    if (size < 9.5) faults.push(`${quote(element)}: ${size.toFixed(1)} px are too small to be read`);
  };

  // --- drawings ---
  const drawn = drawings.filter(shown);
  if (!isDrawing && drawn.length !== document.querySelectorAll("figure").length) faults.push("a figure shows nothing, or two drawings");
  for (const svg of drawn) {
    const frame = svg.getBoundingClientRect(), title = svg.querySelector("title")?.textContent;
    if (!title || svg.getAttribute("role") !== "img") faults.push("a drawing says nothing to those who cannot see it");
    if (frame.width < 200 || frame.height < 60) faults.push(`${title}: ${frame.width} x ${frame.height}`);
    const shapes = [...svg.querySelectorAll("rect, path, circle")].filter((shape) => !shape.closest("defs, clipPath"));
    if (shapes.length < 5) faults.push(`${title}: hardly anything is drawn`);
    const texts = [...svg.querySelectorAll("text")];
    const boxes = texts.map((text) => {
      const box = text.getBoundingClientRect(), scale = Math.abs(svg.getScreenCTM().a);
      const size = parseFloat(getComputedStyle(text).fontSize) * scale;
      const isUpright = box.height > box.width && text.textContent.trim().length > 2;
      // a line's box is higher than its letters, and letters that touch read as one word
      const along = 0.12 * size, across = -0.12 * size;
      const [x, y] = isUpright ? [across, along] : [along, across];
      return { size, left: box.left - x, right: box.right + x, top: box.top - y, bottom: box.bottom + y };
    });
    boxes.forEach((a, i) => {
      if (a.left < frame.left - 2 || a.right > frame.right + 2 || a.top < frame.top - 2 || a.bottom > frame.bottom + 2)
        faults.push(`${title}: ${quote(texts[i])} is cut`);
      boxes.slice(i + 1).forEach((b, j) => {
        if (a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom)
          faults.push(`${title}: ${quote(texts[i])} and ${quote(texts[i + 1 + j])} overlap or touch`);
      });
      // what was painted before the text, where its middle is
      const middle = new DOMPoint((a.left + a.right) / 2, (a.top + a.bottom) / 2);
      let back = isDrawing ? [255, 255, 255, 1] : grounds(svg.parentElement)[0];
      for (const shape of shapes) {
        if (!(shape.compareDocumentPosition(texts[i]) & Node.DOCUMENT_POSITION_FOLLOWING)) break;
        const style = getComputedStyle(shape), fill = parse(style.fill);
        if (style.fill === "none" || !shape.isPointInFill(middle.matrixTransform(shape.getScreenCTM().inverse()))) continue;
        fill[3] *= parseFloat(style.fillOpacity) * parseFloat(style.opacity);
        back = over(fill, back);
      }
      const style = getComputedStyle(texts[i]);
      readable(texts[i], parse(style.fill), [back], a.size, parseInt(style.fontWeight) >= 600);
    });
  }
  if (isDrawing) return faults;

  // --- the page ---
  const root = document.documentElement;
  if (root.scrollWidth > innerWidth) faults.push(`the page is ${root.scrollWidth} px wide, its window ${innerWidth}`);
  const scrolls = (element) => ["auto", "scroll"].includes(getComputedStyle(element).overflowX);
  const inScrollBox = (element) => element !== null && (scrolls(element) || inScrollBox(element.parentElement));
  for (const element of document.body.querySelectorAll("*:not(svg, svg *)")) {
    if (!shown(element)) continue;
    const style = getComputedStyle(element), right = element.getBoundingClientRect().right;
    if (element.clientWidth && element.scrollWidth > element.clientWidth + 1 && !scrolls(element))
      faults.push(`<${element.tagName.toLowerCase()}> ${quote(element)}: cut, or over its neighbour`);
    if (right > innerWidth + 1 && !inScrollBox(element)) faults.push(`<${element.tagName.toLowerCase()}> ${quote(element)}: beyond the window`);
    if (element.tagName === "TABLE" && !inScrollBox(element)) faults.push(`<table> ${quote(element)}: in no box that scrolls`);
    if ([...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim()))
      readable(element, parse(style.color), grounds(element), parseFloat(style.fontSize), parseInt(style.fontWeight) >= 600);
  }
  return [...new Set(faults)];
}
