// Ctrl-V, wherever on the page: a picture of the clipboard goes into the picture's field.
() => document.addEventListener("paste", async (event) => {
    if (event.target.closest("input, textarea") && event.clipboardData.types.includes("text/plain")) return;
    const picture = [...event.clipboardData.files].find((file) => file.type.startsWith("image/"));
    if (!picture) return;
    document.querySelector("#picture [aria-label='Remove Image']")?.click();
    for (let tries = 0; tries < 20; tries++) {
        const input = document.querySelector("#picture input[type=file]");
        if (input) {
            const files = new DataTransfer();
            files.items.add(picture);
            input.files = files.files;
            return input.dispatchEvent(new Event("change", {bubbles: true}));
        }
        await new Promise((resume) => setTimeout(resume, 50));
    }
})
