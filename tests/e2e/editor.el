;;; What a user of dap-mode does, without hands: break in pool_put, open the trace, go back to it, step back.
;;; Arguments: the program, the trace, a source file, a line of it.
(require 'package)
(package-initialize)
(load (expand-file-name "../../examples/emacs/workbench-dap.el" (file-name-directory load-file-name)) nil t)
(setq dap-auto-configure-features nil
      dap-breakpoints-file (make-temp-name (expand-file-name "breakpoints" temporary-file-directory)))

(defvar shown 0 "How many frames were shown.")
(add-hook 'dap-stack-frame-changed-hook (lambda (_session) (setq shown (1+ shown))))

(defun until-shown (before what)
  "Wait for a frame after the first BEFORE, and print where WHAT led."
  (let ((end (+ (float-time) 60)))
    (while (and (= shown before) (< (float-time) end)) (accept-process-output nil 0.05)))
  (let* ((frame (dap--debug-session-active-frame (dap--cur-session)))
         (file (gethash "path" (gethash "source" frame))))
    (princ (format "%s: %s at %s:%s\n"
                   what (gethash "name" frame) (file-name-nondirectory file) (gethash "line" frame)))))

(setq workbench-dap-program (pop command-line-args-left))
(let ((trace (pop command-line-args-left)))
  (find-file (pop command-line-args-left))
  (goto-char (point-min))
  (forward-line (1- (string-to-number (pop command-line-args-left))))
  (dap-breakpoint-toggle)
  (workbench-dap trace)
  (until-shown 0 "opened")
  (dolist (command '(workbench-dap-reverse-continue workbench-dap-step-back dap-next))
    (let ((before shown))
      (call-interactively command)
      (until-shown before command)))
  (dap-disconnect (dap--cur-session)))
