@echo off
rem The command audioldm from a checkout on Windows: the first run installs, later runs start at once.
setlocal
set "root=%~dp0.."
if not defined AUDIOLDM_VENV set "AUDIOLDM_VENV=%root%\.venv"
if not defined PYTHON set "PYTHON=py -3"
set "installed=%AUDIOLDM_VENV%\.stamp-base"
if not exist "%installed%" (
    echo audioldm: first run: installing into %AUDIOLDM_VENV% ^(some minutes^) ... 1>&2
    %PYTHON% -m venv "%AUDIOLDM_VENV%" || exit /b 1
    pushd "%root%"
    "%AUDIOLDM_VENV%\Scripts\python" -m pip install --disable-pip-version-check --quiet --constraint constraints.txt --editable . 1>&2 || (popd & exit /b 1)
    popd
    echo installed> "%installed%"
)
"%AUDIOLDM_VENV%\Scripts\audioldm.exe" %*
exit /b %errorlevel%
