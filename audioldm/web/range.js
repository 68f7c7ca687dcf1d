// props.value: {chosen: [first, last] or null, length, peaks}
const find = (name) => element.querySelector(name);
const first = find(".first"), last = find(".last"), canvas = find("canvas");

function draw() {
  const {chosen, length, peaks} = props.value, pen = canvas.getContext("2d"), width = canvas.width / peaks.length;
  canvas.style.display = peaks.length ? "block" : "none";
  pen.clearRect(0, 0, canvas.width, canvas.height);
  peaks.forEach((peak, i) => {
    const place = (i + 0.5) / peaks.length * length, height = Math.max(1, peak * canvas.height);
    pen.fillStyle = chosen && place >= chosen[0] && place < chosen[1] ? "#ea580c" : "#a1a1aa";
    pen.fillRect(i * width, (canvas.height - height) / 2, width, height);
  });
  find("output").textContent = chosen ? `${chosen[0]} to ${chosen[1]} UNIT` : "nothing chosen";
}

function place() {
  const {chosen, length} = props.value;
  first.max = last.max = length;
  [first.value, last.value] = chosen || [0, length];
  draw();
}

function choose(chosen) {
  props.value = {...props.value, chosen};
  place();
}

element.addEventListener("input", (event) => {
  const values = [Number(first.value), Number(last.value)];
  if (values[0] > values[1]) values[event.target === first ? 1 : 0] = values[event.target === first ? 0 : 1];
  choose(values);
});
find(".none").addEventListener("click", () => choose(null));
watch("value", place);
place();
